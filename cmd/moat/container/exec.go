package container

import (
	"errors"
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"moat/sentry/boot"
)

// ExecOptions are `moat exec`'s.
type ExecOptions struct {
	Process boot.Process
	Stdio   [3]*os.File
	// Extra are more descriptors for the process, from 3 on.
	Extra []*os.File
	// Detach returns once the process runs; a keeper stands for it on the host.
	Detach bool
	// PIDFile gets the number of the host's process that ends as the container's does, and passes signals on.
	PIDFile, ConsoleSocket string
	// PIDFDSocket gets a descriptor of that process.
	PIDFDSocket  string
	IgnorePaused bool
}

// Exec runs another process in the container, and unless it is detached waits for its end. The calling goroutine is the main one.
func (c *Container) Exec(o *ExecOptions) (st boot.ExitStatus, err error) {
	switch c.Status() {
	case Running, Created:
	case Paused:
		if !o.IgnorePaused {
			return st, errors.New("cannot exec in a paused container (use --ignore-paused to override)")
		}
	default:
		return st, errors.New("cannot exec in a container that is not running")
	}
	p := &o.Process
	p.Extra = len(o.Extra)
	if o.Detach {
		return st, c.execDetached(o)
	}
	p.Terminal = p.Spec.Terminal
	opts := &Options{Config: boot.Config{First: *p}, Stdio: o.Stdio}
	term, err := openTerminal(opts)
	if err != nil {
		return st, err
	}
	defer term.restore()
	sigs := make(chan os.Signal, 16)
	signal.Notify(sigs, keeperSignals...)
	signal.Ignore(unix.SIGPIPE)
	x, err := c.startExec(&opts.Config.First, append(o.Stdio[:], o.Extra...))
	if err != nil {
		return st, err
	}
	defer x.cl.Close()
	if o.PIDFile != "" {
		if err := WritePIDFile(o.PIDFile, os.Getpid()); err != nil {
			return st, err
		}
	}
	if err := sendPIDFD(o.PIDFDSocket, os.Getpid()); err != nil {
		return st, err
	}
	return x.attend(sigs, term.size), nil
}

// execution is a process, or a container in another's sandbox, that was started over a connection of its own, which it does not outlive.
type execution struct {
	cl *Client
	// id.PID is 0 for a container.
	id boot.ProcessID
}

func (c *Container) startExec(p *boot.Process, files []*os.File) (*execution, error) {
	p.ID = c.ID
	return c.execute("Exec", p, files)
}

// execute asks for a process or a container with files.
func (c *Container) execute(method string, args any, files []*os.File) (*execution, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	for i, f := range files {
		if f == nil {
			files[i] = null
		}
	}
	cl, err := c.Dial(files...)
	if err != nil {
		return nil, err
	}
	var r boot.StartReply
	if err = c.known(cl.Call(method, args, &r)); err == nil {
		err = replyError(&r)
	}
	if err != nil {
		cl.Close()
		return nil, err
	}
	return &execution{cl, boot.ProcessID{ID: c.ID, PID: r.PID}}, nil
}

// keeperSignals are all that can be passed on.
var keeperSignals = []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGABRT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGTERM, unix.SIGCONT,
	unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGWINCH}

// attend passes signals and the terminal's size on until the process has ended, and returns how. If the sandbox has ended, the process was killed.
func (x *execution) attend(sigs <-chan os.Signal, size func() (rows, cols uint16, ok bool)) boot.ExitStatus {
	trimForGood()
	st := boot.ExitStatus{}
	done := make(chan error, 1)
	go func() {
		if x.id.PID == 0 {
			done <- x.cl.Call("Wait", &boot.None{}, &st)
		} else {
			done <- x.cl.Call("WaitExec", &x.id, &st)
		}
	}()
	for {
		select {
		case err := <-done:
			if err != nil {
				st = boot.ExitStatus{Signal: int(unix.SIGKILL)}
			}
			return st
		case sig := <-sigs:
			if sig == unix.SIGWINCH {
				if rows, cols, ok := size(); ok {
					go x.cl.Call("Resize", &boot.WinSize{Rows: rows, Cols: cols, ID: x.id.ID, PID: x.id.PID}, &boot.None{})
					continue
				}
			}
			go x.cl.Call("Signal", &boot.SignalArgs{ID: x.id.ID, PID: x.id.PID, Signal: int(sig.(unix.Signal))}, &boot.None{})
		}
	}
}

// Inherited returns n descriptors from 3 on that this process was started with.
func Inherited(n int) ([]*os.File, error) {
	var fs []*os.File
	for fd := 3; fd < 3+n; fd++ {
		if fl, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || fl&unix.FD_CLOEXEC != 0 {
			return nil, fmt.Errorf("--preserve-fds=%d: descriptor %d was not passed", n, fd)
		}
		fs = append(fs, os.NewFile(uintptr(fd), fmt.Sprintf("fd%d", fd)))
	}
	return fs, nil
}
