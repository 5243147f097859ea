package container

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"moat/fsgofer"

	"moat/sentry/boot"
	"moat/sentry/boot/rpc"
)

// Options are what a container is started with.
type Options struct {
	// Config is without its Spec, which is made of this Spec.
	Config boot.Config
	Spec   *specs.Spec
	// ID and Bundle name a container that has a state directory.
	ID, Bundle string
	// sandbox is the pod's sandbox that the container is to be in; isSandbox: it is one itself.
	sandbox   string
	isSandbox bool
	// gofer has the sources of Config.Mounts.
	gofer []goferMount
	// points are what is to be mounted on below a root that is read-only.
	points []mountPoint
	// Log receives log lines; nil: nobody.
	Log *os.File
	// Stdio are the first process' standard input, output and error.
	Stdio [3]*os.File
	// Extra are more descriptors for it, from 3 on.
	Extra []*os.File
	// netNS is the network namespace to join; nil: a new one.
	netNS *os.File
	// HostNet: there is no network namespace for it; with Config.Network "host" it is in the caller's.
	HostNet bool
	// Network are the interfaces beside lo; nil: those of the sentry's namespace, if Config.Network is "sandbox".
	Network *Network
	// Pcap is a file for what they carry; nil: it is not recorded.
	Pcap *os.File
	// Warn is told of what is not honoured; it may be nil.
	Warn func(string)

	// Of a sandbox that lives on: where more control connections come in, where the exit status goes, and the directory for last words.
	listen, exit *os.File
	dir          string
	// counts are the two files of Config.HostMemory, or none.
	counts []*os.File
}

// warn tells of what is not honoured.
func (o *Options) warn(format string, a ...any) {
	if o.Warn != nil {
		o.Warn(fmt.Sprintf(format, a...))
	}
}

// Sandbox is a running sentry with its gofer; of a container in another's sandbox it is its keeper in the sentry's place, with its gofer.
type Sandbox struct {
	id            string
	sentry, gofer *process
	orders        *keeperPipes // nil: it has a sentry of its own
	dial          func() (*Client, error)
	report        *os.File // of the gofer
	conn          *os.File
	links         *os.File // where the packet sockets are passed
	client        *Client
}

// process is one of the two, its last words and its end.
type process struct {
	name  string
	cmd   *exec.Cmd
	words tail
	file  string        // where the last words are, if not in words
	done  chan struct{} // closed when it has ended
	state *os.ProcessState
}

// Start makes a sandbox and starts its first process. The calling goroutine must be locked to a thread that lives as long as the sandbox.
func Start(o *Options) (*Sandbox, error) {
	s, err := launch(o)
	if err != nil {
		return nil, err
	}
	if err = s.create(o); err == nil {
		err = s.ask("Start", &boot.StartArgs{})
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// launch starts the two processes of a sandbox, which wait for orders.
func launch(o *Options) (*Sandbox, error) {
	return launchWith(o, func(s *Sandbox, sentryGofer *os.File) error {
		ours, control, err := socketpair(unix.SOCK_STREAM)
		if err != nil {
			return err
		}
		defer control.Close()
		s.conn = ours
		return s.startSentry(o, control, sentryGofer)
	})
}

// launchWith starts a gofer and, by second, the other process, which gets the end of the gofer's socket that is the sentry's.
func launchWith(o *Options, second func(s *Sandbox, sentryGofer *os.File) error) (*Sandbox, error) {
	s := &Sandbox{id: o.ID}
	sentryGofer, err := s.launchGofer(o)
	if err == nil {
		err = second(s, sentryGofer)
		sentryGofer.Close()
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// launchGofer starts a gofer, and returns the sentry's end of their socket.
func (s *Sandbox) launchGofer(o *Options) (*os.File, error) {
	// Nothing that was inherited without close-on-exec may get into the sandbox.
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return nil, fmt.Errorf("close_range: %w (moat needs Linux 5.12 or later)", err)
	}
	goferEnd, sentryEnd, err := socketpair(unix.SOCK_SEQPACKET)
	if err != nil {
		return nil, err
	}
	s.report, err = s.startGofer(o, goferEnd)
	goferEnd.Close()
	if err != nil {
		sentryEnd.Close()
		return nil, err
	}
	return sentryEnd, nil
}

// create has the sandbox built, once the gofer is ready.
func (s *Sandbox) create(o *Options) error {
	b, err := io.ReadAll(io.LimitReader(s.report, 4096))
	if len(b) > 0 || err != nil {
		return cmp.Or(err, errors.New(string(b)))
	}
	if s.orders != nil {
		return s.add(o)
	}
	s.client = newClient(s.conn)
	if err := s.sendNetwork(o); err != nil {
		return err
	}
	for _, f := range o.counts {
		defer f.Close()
	}
	s.client.conn.files, o.Config.HostMemory = o.counts, len(o.counts) > 0
	return s.ask("Create", o.forSentry())
}

// forSentry is the configuration with what the sentry has to know of config.json.
func (o *Options) forSentry() *boot.Config {
	c, l := o.Config, cmp.Or(o.Spec.Linux, &specs.Linux{})
	c.Spec = boot.Spec{Hostname: o.Spec.Hostname, Domainname: o.Spec.Domainname, Mounts: o.Spec.Mounts, MaskedPaths: l.MaskedPaths, ReadonlyPaths: l.ReadonlyPaths,
		Sysctl: l.Sysctl, Devices: l.Devices, RootfsPropagation: l.RootfsPropagation, Resources: l.Resources, UIDMappings: l.UIDMappings, GIDMappings: l.GIDMappings}
	return &c
}

// ask calls a method that answers with a StartReply.
func (s *Sandbox) ask(method string, args any) error {
	var r boot.StartReply
	var err error
	select {
	case err = <-s.client.Go(method, args, &r):
	case <-s.gofer.done:
		// The sentry ends for that, too; what it says of it is worth less.
		return s.failure()
	}
	var remote rpc.ServerError
	if err != nil && !errors.As(err, &remote) {
		return s.failure()
	}
	return cmp.Or(err, replyError(&r))
}

// replyError is what a reply says went wrong, or nil.
func replyError(r *boot.StartReply) error {
	if r.Error != "" {
		return &StartError{r.Error, r.Code}
	}
	return nil
}

// StartError says why the first process could not be started.
type StartError struct {
	Text string
	Code int
}

func (e *StartError) Error() string { return e.Text }

func socketpair(typ int) (a, b *os.File, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	return os.NewFile(uintptr(p[0]), "socket"), os.NewFile(uintptr(p[1]), "socket"), nil
}

// standaloneEnv is set for processes that live on when the one that started them ends.
const standaloneEnv = "MOAT_STANDALONE"

// command is this binary with a hidden verb, in new namespaces.
func command(o *Options, verb string, files ...*os.File) *exec.Cmd {
	c := exec.Command("/proc/self/exe", verb)
	c.Args[0] = "moat"
	// Nothing of the caller's environment. The runtime must not look for a time zone once there are no files.
	c.Env = []string{"TZ=UTC"}
	c.ExtraFiles = append(files, make([]*os.File, roomFor(len(files)))...)
	c.Dir = "/"
	// A pipe's end that outlives the process must not keep us waiting for it.
	c.WaitDelay = time.Second
	c.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig:  syscall.SIGKILL,
		Setsid:     true,
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP,
	}
	if o.Config.Standalone {
		c.SysProcAttr.Pdeathsig = 0
		c.Env = append(c.Env, standaloneEnv+"=1")
	}
	return c
}

// tableRoom is up to which number there is room in the descriptor table that a sentry or a gofer starts with. The host makes a table larger that threads share
// only after an RCU grace period (fs/file.c expand_fdtable): 5 to 15 ms each time that their descriptors double, in the middle of some open.
const tableRoom = 2048

// roomFor is how many absent files behind n make os/exec, which moves its own descriptor out of their way, leave such a table behind, while it is the child's alone.
func roomFor(n int) int {
	var lim unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &lim) != nil {
		return 0
	}
	return max(int(min(lim.Cur/2, tableRoom))-n-3, 0)
}

// nobody is the host user that the sentry is when root starts it, where the host has given it no other meaning.
const nobody = 65534

// userNamespace puts c into a user namespace in which its only ID, 0, is the host's uid and gid.
func userNamespace(c *exec.Cmd, uid, gid int) {
	a := c.SysProcAttr
	a.Cloneflags |= unix.CLONE_NEWUSER
	a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
	a.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}}
	if maySetGroups() {
		// The caller's groups must not stay.
		a.GidMappingsEnableSetgroups = true
		a.Credential = &syscall.Credential{}
	} else {
		a.Credential = &syscall.Credential{NoSetGroups: true}
	}
}

func (s *Sandbox) startGofer(o *Options, conn *os.File) (report *os.File, err error) {
	cr, cw, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer cw.Close()
	defer cr.Close()
	rr, rw, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer rw.Close()
	c := command(o, "gofer", conn, cr, rw)
	c.Env = append(c.Env, "GODEBUG="+fsgofer.Godebug)
	if os.Geteuid() != 0 {
		// That of an ordinary user acts on the user's files as root of a namespace.
		userNamespace(c, os.Geteuid(), os.Getegid())
	}
	if s.gofer, err = startProcess("gofer", c, o.dir); err != nil {
		rr.Close()
		return nil, err
	}
	b, err := json.Marshal(&goferConfig{o.gofer, o.points, o.Config.Unsafe})
	if err == nil {
		_, err = cw.Write(b)
	}
	if err != nil && !errors.Is(err, unix.EPIPE) {
		rr.Close()
		return nil, err
	}
	return rr, nil
}

func (s *Sandbox) startSentry(o *Options, control, gofer *os.File) (err error) {
	log := o.Log
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	files := []*os.File{control, gofer, log, o.Stdio[0], o.Stdio[1], o.Stdio[2], o.listen, o.exit}
	for i, f := range files {
		if f == nil {
			files[i] = null
		}
	}
	o.Config.First.Extra = len(o.Extra)
	files = append(files, o.Extra...)
	if o.Config.Network == "sandbox" {
		ours, theirs, err := socketpair(unix.SOCK_SEQPACKET)
		if err != nil {
			return err
		}
		defer theirs.Close()
		s.links, o.Config.LinksFD = ours, boot.ControlFD+len(files)
		if files = append(files, theirs); o.Pcap != nil {
			o.Config.Pcap = boot.ControlFD + len(files)
			files = append(files, o.Pcap)
		}
	}
	c := command(o, "boot", files...)
	if o.Config.Console {
		c.SysProcAttr.Setctty, c.SysProcAttr.Ctty = true, boot.StdioFD
	}
	uid, gid := os.Geteuid(), os.Getegid()
	if uid == 0 && mapped("uid_map", nobody) && mapped("gid_map", nobody) {
		uid, gid = nobody, nobody
	}
	userNamespace(c, uid, gid)
	if o.HostNet && o.Config.Network == "host" {
		c.SysProcAttr.Cloneflags &^= unix.CLONE_NEWNET
	}
	if o.netNS == nil {
		s.sentry, err = startProcess("sentry", c, o.dir)
		return err
	}
	c.SysProcAttr.Cloneflags &^= unix.CLONE_NEWNET
	return inNamespace(o.netNS, func() (err error) {
		s.sentry, err = startProcess("sentry", c, o.dir)
		return err
	})
}

func startProcess(name string, c *exec.Cmd, dir string) (*process, error) {
	p := &process{name: name, cmd: c, done: make(chan struct{})}
	if c.Stderr == nil {
		c.Stderr = &p.words
	} else {
		dir = ""
	}
	if dir != "" {
		p.file = filepath.Join(dir, name+".log")
		f, err := os.OpenFile(p.file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		c.Stderr = f
	}
	if err := c.Start(); err != nil {
		hint := ""
		switch {
		case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EUSERS) || errors.Is(err, unix.ENOSPC):
			hint = " (are user namespaces allowed? see /proc/sys/user/max_user_namespaces)"
		case errors.Is(err, unix.EACCES):
			hint = " (the moat binary must be executable by everyone: chmod 755)"
		}
		return nil, fmt.Errorf("cannot start the %s: %w%s", name, err, hint)
	}
	go func() {
		c.Wait()
		p.state = c.ProcessState
		if p.file != "" {
			p.words.load(p.file)
		}
		close(p.done)
	}()
	return p, nil
}

// kill ends the process and waits for its end.
func (p *process) kill() {
	if p != nil {
		p.cmd.Process.Kill()
		<-p.done
	}
}

// ended reports whether the process has ended, waiting a moment for it.
func (p *process) ended(d time.Duration) bool {
	if p == nil {
		return false
	}
	select {
	case <-p.done:
		return true
	default: // of two that are ready, the select below takes any
	}
	select {
	case <-p.done:
		return true
	case <-time.After(d):
		return false
	}
}

// status is the process' end as a sentence.
func (p *process) status() string {
	ws, _ := p.state.Sys().(syscall.WaitStatus)
	var s string
	switch {
	case ws.Signaled() && ws.Signal() == unix.SIGSYS:
		s = "was killed for a host call that its filter forbids (SIGSYS; this is a bug in moat)"
	case ws.Signaled():
		s = fmt.Sprintf("was killed by signal %d (%v)", ws.Signal(), ws.Signal())
	default:
		s = fmt.Sprintf("ended with status %d", ws.ExitStatus())
	}
	if l := p.words.Line(); l != "" {
		s += ": " + l
	}
	return "the " + p.name + " " + s
}

func (p *process) signaled() (sig int) {
	if ws, ok := p.state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return int(ws.Signal())
	}
	return 0
}

// Failure is the end of a sandbox by other things than its first process.
type Failure struct {
	Text string
	// Words is all that the processes said.
	Words string
	Code  int
}

func (f *Failure) Error() string { return f.Text }

// failure finds out what ended the sandbox. The one that died first is to blame: the other follows it with an exit status of its own.
func (s *Sandbox) failure() error {
	f := &Failure{Code: boot.ExitFailure}
	s.gofer.ended(200 * time.Millisecond)
	sd, gd := s.sentry.ended(2*time.Second), s.gofer.ended(2*time.Second)
	f.Words = strings.TrimSpace(s.sentry.words.String() + s.gofer.words.String())
	var p *process
	switch {
	case gd && (s.gofer.signaled() != 0 || s.gofer.words.Line() != ""):
		p = s.gofer
	case sd:
		p = s.sentry
	case gd:
		p = s.gofer
	default:
		f.Text = "the sentry closed its control socket; the container was killed"
		return f
	}
	f.Text = p.status()
	if p.signaled() == int(unix.SIGKILL) {
		// Somebody's kill -9, or the host's out-of-memory killer: to the caller, the container was killed.
		f.Code = 128 + int(unix.SIGKILL)
	}
	return f
}

// Wait returns when the first process has ended, or with an error when the sandbox has.
func (s *Sandbox) Wait() (boot.ExitStatus, error) {
	var st boot.ExitStatus
	call := s.client.Go("Wait", &boot.None{}, &st)
	var err error
	select {
	case err = <-call:
	case <-s.gofer.done:
		// Perhaps the sentry has an answer on its way all the same.
		select {
		case err = <-call:
		case <-time.After(500 * time.Millisecond):
			return st, s.failure()
		}
	}
	if err != nil {
		err = s.failure()
	}
	return st, err
}

// Signal sends a signal to the first process, or with group to the foreground process group.
func (s *Sandbox) Signal(sig int, group bool) error {
	return s.client.Call("Signal", &boot.SignalArgs{ID: s.id, Signal: sig, Group: group}, &boot.None{})
}

// Resize tells the sandbox's terminal its size.
func (s *Sandbox) Resize(rows, cols uint16) error {
	return s.client.Call("Resize", &boot.WinSize{Rows: rows, Cols: cols, ID: s.id}, &boot.None{})
}

// Close ends the sandbox and returns when nothing of it is left.
func (s *Sandbox) Close() {
	if s.report != nil {
		s.report.Close()
	}
	s.orders.close()
	if s.client != nil {
		s.client.Close()
	} else if s.conn != nil {
		s.conn.Close()
	}
	s.sentry.kill()
	s.gofer.kill()
}
