package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

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

// execution is a process that was started over a connection of its own, which it does not outlive.
type execution struct {
	cl  *Client
	pid int32
}

func (c *Container) startExec(p *boot.Process, files []*os.File) (*execution, error) {
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
	if err = cl.Call("Sandbox.Exec", p, &r); err == nil {
		err = replyError(&r)
	}
	if err != nil {
		cl.Close()
		return nil, err
	}
	return &execution{cl, r.PID}, nil
}

// keeperSignals are all that can be passed on.
var keeperSignals = []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGABRT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGTERM, unix.SIGCONT,
	unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGWINCH}

// attend passes signals and the terminal's size on until the process has ended, and returns how. If the sandbox has ended, the process was killed.
func (x *execution) attend(sigs <-chan os.Signal, size func() (rows, cols uint16, ok bool)) boot.ExitStatus {
	st := boot.ExitStatus{}
	done := make(chan error, 1)
	go func() { done <- x.cl.Call("Sandbox.WaitExec", &x.pid, &st) }()
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
					go x.cl.Call("Sandbox.Resize", &boot.WinSize{Rows: rows, Cols: cols, PID: x.pid}, &boot.None{})
					continue
				}
			}
			go x.cl.Call("Sandbox.Signal", &boot.SignalArgs{Signal: int(sig.(unix.Signal)), PID: x.pid}, &boot.None{})
		}
	}
}

// keeperConfig is what a keeper is told. Its standard input, output and error are the process', those from keeperExtra on its other descriptors.
type keeperConfig struct {
	Root, ID string
	Process  boot.Process
}

// The keeper's descriptors.
const (
	keeperConfigFD = 3 // keeperConfig, up to end of file
	keeperReportFD = 4 // keeperReport
	keeperExtra    = 5
)

type keeperReport struct {
	Error string
	Code  int
}

// execDetached starts a keeper, a process of the host that lives as long as the container's and ends with its status: callers of runtimes wait for it.
func (c *Container) execDetached(o *ExecOptions) error {
	p := &o.Process
	k := exec.Command("/proc/self/exe", "keeper")
	k.Args[0] = "moat"
	k.Env = []string{"TZ=UTC"}
	k.Dir = "/"
	k.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	stdio := o.Stdio
	if p.Terminal = p.Spec.Terminal; p.Terminal {
		if o.ConsoleSocket == "" {
			return errors.New("cannot allocate tty if moat will detach without setting console socket")
		}
		slave, err := openConsole(p, o.ConsoleSocket)
		if err != nil {
			return err
		}
		defer slave.Close()
		stdio = [3]*os.File{slave, slave, slave}
		k.SysProcAttr.Setctty = true
	}
	k.Stdin, k.Stdout, k.Stderr = stdio[0], stdio[1], stdio[2]
	cr, cw, err := os.Pipe()
	if err != nil {
		return err
	}
	defer cw.Close()
	rr, rw, err := os.Pipe()
	if err != nil {
		cr.Close()
		return err
	}
	defer rr.Close()
	k.ExtraFiles = append([]*os.File{cr, rw}, o.Extra...)
	err = k.Start()
	cr.Close()
	rw.Close()
	if err != nil {
		return fmt.Errorf("start the keeper: %w", err)
	}
	root, _ := strings.CutSuffix(c.dir, "/"+c.ID)
	err = json.NewEncoder(cw).Encode(&keeperConfig{root, c.ID, *p})
	cw.Close()
	var r keeperReport
	if err == nil {
		err = json.NewDecoder(io.LimitReader(rr, 1<<20)).Decode(&r)
	}
	switch {
	case err != nil:
		err = fmt.Errorf("the keeper of the process ended: %w", err)
	case r.Error != "":
		err = &StartError{r.Error, r.Code}
	default:
		if o.PIDFile != "" {
			err = WritePIDFile(o.PIDFile, k.Process.Pid)
		}
		if err == nil {
			err = sendPIDFD(o.PIDFDSocket, k.Process.Pid)
		}
	}
	if err != nil {
		k.Process.Kill()
		k.Wait()
		return err
	}
	return k.Process.Release()
}

// Keeper stands on the host for a process that was started by a detached exec. It returns the exit code to end with.
func Keeper() int {
	unix.CloseRange(keeperConfigFD, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)
	sigs := make(chan os.Signal, 16)
	signal.Notify(sigs, keeperSignals...)
	signal.Ignore(unix.SIGPIPE)
	report := os.NewFile(keeperReportFD, "report")
	x, terminal, err := keep()
	r := keeperReport{}
	if err != nil {
		r.Error, r.Code = err.Error(), boot.ExitFailure
		var start *StartError
		if errors.As(err, &start) {
			r.Code = start.Code
		}
	}
	json.NewEncoder(report).Encode(&r)
	report.Close()
	if err != nil {
		return r.Code
	}
	size := func() (uint16, uint16, bool) {
		w, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
		if err != nil {
			return 0, 0, false
		}
		return w.Row, w.Col, true
	}
	if !terminal {
		// Only the container keeps its pipes open.
		if null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0); err == nil {
			for fd := range 3 {
				unix.Dup2(null, fd)
			}
			unix.Close(null)
		}
	}
	return x.attend(sigs, size).Shell()
}

func keep() (*execution, bool, error) {
	f := os.NewFile(keeperConfigFD, "config")
	var k keeperConfig
	err := json.NewDecoder(f).Decode(&k)
	f.Close()
	if err != nil {
		return nil, false, fmt.Errorf("the keeper's configuration: %w", err)
	}
	c, err := Load(k.Root, k.ID)
	if err != nil {
		return nil, false, err
	}
	files := []*os.File{os.Stdin, os.Stdout, os.Stderr}
	for i := range k.Process.Extra {
		files = append(files, os.NewFile(uintptr(keeperExtra+i), "extra"))
	}
	x, err := c.startExec(&k.Process, files)
	for _, f := range files[3:] {
		f.Close()
	}
	return x, k.Process.Terminal, err
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
