package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"moat/sentry/boot"
)

// keeperConfig is what a keeper is told. Its standard input, output and error are the process', those from keeperExtra on its other descriptors.
type keeperConfig struct {
	Root, ID string
	Process  boot.Process
	// Add is the container in another's sandbox that the keeper is to stand for, in place of Process. Its socket and the file for its exit status come before
	// the other descriptors. A second order, true, lets it live on when who gave the orders ends.
	Add *boot.Config
}

// The keeper's descriptors.
const (
	keeperOrdersFD = 3 // keeperConfig
	keeperReportFD = 4 // keeperReport
	keeperExtra    = 5
)

type keeperReport struct {
	Error string
	Code  int
}

// keeperPipes are the ends of who gives the orders, and until the keeper has started its own.
type keeperPipes struct {
	orders, report *os.File
	theirs         []*os.File
}

func (k *keeperPipes) close() {
	if k != nil {
		k.orders.Close()
		k.report.Close()
		k.started()
	}
}

func (k *keeperPipes) started() {
	for _, f := range k.theirs {
		f.Close()
	}
	k.theirs = nil
}

func (k *keeperPipes) send(order any) error { return json.NewEncoder(k.orders).Encode(order) }

// command sends what the keeper is to do, and returns what came of it.
func (k *keeperPipes) command(c *keeperConfig) error {
	err := k.send(c)
	var r keeperReport
	if err == nil {
		err = json.NewDecoder(io.LimitReader(k.report, 1<<20)).Decode(&r)
	}
	switch {
	case err != nil:
		return fmt.Errorf("the keeper of the process ended: %w", err)
	case r.Error != "":
		return &StartError{r.Error, r.Code}
	}
	return nil
}

// newKeeper prepares a keeper. With terminal, its standard input is its controlling terminal.
func newKeeper(stdio [3]*os.File, terminal bool, extra []*os.File) (*exec.Cmd, *keeperPipes, error) {
	cr, cw, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	rr, rw, err := os.Pipe()
	if err != nil {
		cr.Close()
		cw.Close()
		return nil, nil, err
	}
	k := exec.Command("/proc/self/exe", "keeper")
	k.Args[0] = "moat"
	k.Env = []string{"TZ=UTC"}
	k.Dir = "/"
	k.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: terminal}
	k.Stdin, k.Stdout, k.Stderr = stdio[0], stdio[1], stdio[2]
	k.ExtraFiles = append([]*os.File{cr, rw}, extra...)
	return k, &keeperPipes{cw, rr, k.ExtraFiles[:2:2]}, nil
}

// execDetached starts a keeper, a process of the host that lives as long as the container's and ends with its status: callers of runtimes wait for it.
func (c *Container) execDetached(o *ExecOptions) error {
	p := &o.Process
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
	}
	k, pipes, err := newKeeper(stdio, p.Terminal, o.Extra)
	if err != nil {
		return err
	}
	defer pipes.close()
	if err := k.Start(); err != nil {
		return fmt.Errorf("start the keeper: %w", err)
	}
	pipes.started()
	err = pipes.command(&keeperConfig{Root: filepath.Dir(c.dir), ID: c.ID, Process: *p})
	if err == nil && o.PIDFile != "" {
		err = WritePIDFile(o.PIDFile, k.Process.Pid)
	}
	if err == nil {
		err = sendPIDFD(o.PIDFDSocket, k.Process.Pid)
	}
	if err != nil {
		k.Process.Kill()
		k.Wait()
		return err
	}
	return k.Process.Release()
}

// Keeper stands on the host for a process that was started by a detached exec, or for a container in another's sandbox. It returns the exit code to end with.
func Keeper() int {
	unix.CloseRange(keeperOrdersFD, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)
	sigs := make(chan os.Signal, 16)
	signal.Notify(sigs, keeperSignals...)
	signal.Ignore(unix.SIGPIPE)
	report := os.NewFile(keeperReportFD, "report")
	orders := json.NewDecoder(os.NewFile(keeperOrdersFD, "orders"))
	x, terminal, exit, err := keep(orders)
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
	if exit == nil {
		return x.attend(sigs, size).Shell()
	}
	if on := false; orders.Decode(&on) != nil || !on {
		return boot.ExitFailure // who made the container has failed, or was killed
	}
	st := x.attend(sigs, size)
	json.NewEncoder(exit).Encode(&st)
	return st.Shell()
}

// keep starts what the orders say. exit is where a container's exit status goes.
func keep(orders *json.Decoder) (x *execution, terminal bool, exit *os.File, err error) {
	var k keeperConfig
	if err := orders.Decode(&k); err != nil {
		return nil, false, nil, fmt.Errorf("the keeper's orders: %w", err)
	}
	c, err := Load(k.Root, k.ID)
	if err != nil {
		return nil, false, nil, err
	}
	next := keeperExtra
	inherited := func() *os.File {
		next++
		return os.NewFile(uintptr(next-1), "inherited")
	}
	var files []*os.File
	p := &k.Process
	if k.Add != nil {
		p = &k.Add.First
		files, exit = append(files, inherited()), inherited()
	}
	files = append(files, os.Stdin, os.Stdout, os.Stderr)
	for range p.Extra {
		files = append(files, inherited())
	}
	if a := k.Add; a != nil && a.Network == "sandbox" && a.Share[specs.NetworkNamespace] == "" {
		var n *Network
		if n, err = OwnNetwork(); err != nil {
			return nil, false, nil, err
		}
		defer func() {
			if err != nil {
				n.Close()
			}
		}()
		files, a.Links, a.Loop = append(files, n.files...), n.Links, n.Loop
	}
	if k.Add == nil {
		x, err = c.startExec(p, files)
	} else if x, err = c.execute("Add", k.Add, files); err == nil {
		x.id.PID = 0
	}
	for _, f := range files {
		if f.Fd() > 2 {
			f.Close()
		}
	}
	return x, p.Terminal, exit, err
}
