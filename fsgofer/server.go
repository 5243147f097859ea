package fsgofer

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/seccomp"

	"moat/fsgofer/wire"
)

// Mount is one tree to serve.
type Mount struct {
	// ID is how the sentry asks for it.
	ID uint32
	// FD is its root, a directory or (for a bind-mounted file) any file; O_PATH suffices. The server owns it.
	FD int
	// ReadOnly refuses every change with EROFS.
	ReadOnly bool
	// Shared says that others on the host see the tree: no device nodes are made there.
	Shared bool
}

// Options say what to serve and how.
type Options struct {
	// Conn is the server's end of a SOCK_SEQPACKET socket pair.
	Conn   int
	Mounts []Mount
	// ProcFD is a descriptor of this process's /proc/self/fd; -1: open it by path.
	ProcFD int
	// NoSeccomp leaves the filter out (--debug-unsafe, tests in process).
	NoSeccomp bool
	// SlowClock: the host's clock cannot be read without a system call.
	SlowClock bool
	// LastCall is called right before the filter is installed, for what it will not allow.
	LastCall func()
	// Workers is the number of requests carried out at a time; 0 is 4.
	Workers int
}

// reserveFDs are descriptors that are not handles: files being opened, directories being read.
const (
	reserveFDs = 256
	maxReading = 64
	// garbageAt is how much memory the server takes when the runtime first collects garbage.
	garbageAt = 24 << 20
)

// Server serves one sentry.
type Server struct {
	conn       int
	mounts     map[uint32]*mount
	baton      chan struct{} // who takes it receives
	lifeline   int           // the sentry's end, until Hello
	maxHandles int

	mu sync.Mutex
	// +checklocks:mu
	handles map[wire.Handle]*handle
	// +checklocks:mu
	last wire.Handle
	// reading is the number of open handle.dir descriptors.
	// +checklocks:mu
	reading int
}

type mount struct {
	Mount
	file *handle
}

// Serve serves until the sentry closes the connection (nil) or breaks the protocol (an error). Before it reads the first
// request it raises RLIMIT_NOFILE, makes /proc/self/fd its working directory, clears the umask and installs the filter: it is
// for a process of its own.
func Serve(opts Options) error {
	s := &Server{conn: opts.Conn, baton: make(chan struct{}, 1), mounts: map[uint32]*mount{}, handles: map[wire.Handle]*handle{}}
	for _, m := range opts.Mounts {
		if s.mounts[m.ID] != nil {
			return fmt.Errorf("gofer: two mounts with ID %d", m.ID)
		}
		s.mounts[m.ID] = &mount{m, &handle{fd: m.FD, dir: -1, refs: 1}}
	}
	for _, m := range s.mounts {
		m.file.mount = m
	}
	if err := s.prepare(opts.ProcFD); err != nil {
		return err
	}
	n := opts.Workers
	if n <= 0 {
		n = 4
	}
	// Without the baton the workers only get ready, so that what that touches of the program is given back, too.
	errs := make(chan error, n)
	for range n {
		go func() { errs <- s.work() }()
	}
	if !opts.NoSeccomp {
		if env := os.Getenv("GODEBUG"); env != Godebug {
			return fmt.Errorf("gofer: GODEBUG is %q, must be %q", env, Godebug)
		}
		makeThreads(2*(n+runtime.GOMAXPROCS(0)) + 4)
		defaultSignals()
		filter, err := program(s.writable(), opts.SlowClock)
		if err != nil {
			return fmt.Errorf("gofer: seccomp: %w", err)
		}
		if err := settle(); err != nil {
			return err
		}
		if opts.LastCall != nil {
			opts.LastCall()
		}
		if err := seccomp.SetFilter(filter); err != nil {
			return fmt.Errorf("gofer: seccomp: %w", err)
		}
	}
	s.baton <- struct{}{}
	return <-errs
}

// writable reports whether any mount may be changed.
func (s *Server) writable() bool {
	for _, m := range s.mounts {
		if !m.ReadOnly {
			return true
		}
	}
	return false
}

// prepare does what the filter will no longer allow.
func (s *Server) prepare(procFD int) error {
	if procFD < 0 {
		fd, err := unix.Open("/proc/self/fd", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("gofer: open /proc/self/fd: %w", err)
		}
		procFD = fd
	}
	if err := unix.Fchdir(procFD); err != nil {
		return fmt.Errorf("gofer: fchdir to /proc/self/fd: %w", err)
	}
	unix.Close(procFD)
	unix.Umask(0)
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return fmt.Errorf("gofer: getrlimit: %w", err)
	}
	if lim.Cur < lim.Max {
		want := unix.Rlimit{Cur: lim.Max, Max: lim.Max}
		if unix.Setrlimit(unix.RLIMIT_NOFILE, &want) == nil {
			lim = want
		}
	}
	if lim.Cur < reserveFDs+128 {
		return fmt.Errorf("gofer: at most %d open files (RLIMIT_NOFILE) are too few, need %d", lim.Cur, reserveFDs+128)
	}
	s.maxHandles = int(min(lim.Cur-reserveFDs, 1<<17))
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("gofer: socketpair: %w", err)
	}
	s.lifeline = p[1] // p[0] stays open as long as the process lives
	// The server's live heap is small and its garbage short-lived strings. Going by a percentage, the runtime would collect every two minutes, however idle, and
	// touch much of the program again.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(garbageAt)
	// The first timer makes the runtime open an epoll and an event descriptor; the next may be its scavenger's, at any time.
	time.Sleep(time.Nanosecond)
	// A GOMAXPROCS that was set is not updated by the runtime, which would read cgroup files for it.
	runtime.GOMAXPROCS(runtime.NumCPU())
	debug.SetMaxThreads(64)
	return nil
}

// work carries out requests until the connection ends. Whoever has the baton receives. It keeps it over a request that is over soon, so that no
// other thread is woken for the next one, and passes it on before others.
func (s *Server) work() error {
	growStack()
	b := wire.NewBuffer()
	holds := false
	for {
		if !holds {
			<-s.baton
			holds = true
		}
		n, fds, err := b.Recv(s.conn)
		if len(fds) > 0 {
			closeAll(fds) // nobody sends us descriptors
			err = unix.EBADMSG
		}
		if err == unix.ECONNRESET || err == nil && n == 0 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("gofer: receive: %w", err)
		}
		h, err := wire.DecodeHeader(b.B[:n])
		if err != nil {
			return fmt.Errorf("gofer: the sentry sent a bad message of %d bytes", n)
		}
		if h.Errno&wire.FlagBusy != 0 || h.Op == wire.OpSync {
			s.baton <- struct{}{}
			holds = false
		}
		if done, err := s.answer(b, h, n); done {
			return err
		}
	}
}

// answer carries out the request of n bytes in b and sends the reply. done: the connection is over, by err or for good.
func (s *Server) answer(b *wire.Buffer, h wire.Header, n int) (done bool, _ error) {
	rep, fd, err := s.handle(h.Op, b.B[:n])
	if err == unix.EBADMSG {
		return true, fmt.Errorf("gofer: the sentry sent a bad request (operation %d)", h.Op)
	}
	if h.Op == wire.OpClose {
		return false, nil
	}
	h.Errno = errnoOf(err)
	if err != nil {
		rep = nil
	}
	n, err = wire.Encode(b.B, h, rep)
	if err != nil {
		h.Errno = uint32(unix.EOVERFLOW)
		n, _ = wire.Encode(b.B, h, nil)
	}
	var fds []int
	if fd >= 0 {
		fds = append(fds, fd)
	}
	switch r := rep.(type) {
	case *withFDs:
		fds = append(fds, r.fds...)
	case *listed:
		r.release()
	}
	err = b.Send(s.conn, n, fds)
	closeAll(fds)
	if err == unix.EPIPE || err == unix.ECONNRESET {
		return true, nil
	}
	if err != nil {
		return true, fmt.Errorf("gofer: send: %w", err)
	}
	return false, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

func errnoOf(err error) uint32 {
	if err == nil {
		return 0
	}
	if e, ok := err.(unix.Errno); ok && e > 0 && e < 512 {
		return uint32(e)
	}
	return uint32(unix.EIO)
}

// handlers carry out the requests: the reply, a descriptor to donate (or -1), an errno. EBADMSG ends the connection.
var handlers = [wire.OpMax]func(*Server, []byte) (wire.Message, int, error){
	wire.OpHello:       do((*Server).hello),
	wire.OpAttach:      do((*Server).attach),
	wire.OpWalk:        do((*Server).walk),
	wire.OpOpen:        do((*Server).open),
	wire.OpCreate:      do(on((*Server).create, true)),
	wire.OpMake:        do(on((*Server).makeNode, true)),
	wire.OpLink:        do((*Server).link),
	wire.OpRename:      do((*Server).rename),
	wire.OpUnlink:      do(on((*Server).unlink, true)),
	wire.OpGetAttr:     do(on((*Server).getAttr, false)),
	wire.OpSetAttr:     do(on((*Server).setAttr, true)),
	wire.OpReadDir:     do((*Server).readDir),
	wire.OpReadlink:    do(on((*Server).readlink, false)),
	wire.OpGetXattr:    do(on((*Server).getXattr, false)),
	wire.OpSetXattr:    do(on((*Server).setXattr, true)),
	wire.OpListXattr:   do(on((*Server).listXattr, false)),
	wire.OpRemoveXattr: do(on((*Server).removeXattr, true)),
	wire.OpStatFS:      do(on((*Server).statFS, false)),
	wire.OpSync:        do(on((*Server).sync, false)),
	wire.OpClose:       do((*Server).close),
}

// do is a handler that decodes a request of type Req and calls f.
func do[Req any, P interface {
	*Req
	wire.Message
}](f func(*Server, *Req) (wire.Message, int, error)) func(*Server, []byte) (wire.Message, int, error) {
	return func(s *Server, b []byte) (wire.Message, int, error) {
		req := new(Req)
		if err := wire.DecodeBody(b, P(req)); err != nil {
			return nil, -1, unix.EBADMSG
		}
		return f(s, req)
	}
}

// on is f for requests about one file; with change its mount must be writable.
func on[Req any, P interface {
	*Req
	File() *wire.Ref
}](f func(*Server, *handle, P) (wire.Message, int, error), change bool) func(*Server, *Req) (wire.Message, int, error) {
	return func(s *Server, r *Req) (wire.Message, int, error) {
		e, err := s.resolve(P(r).File(), change)
		if err != nil {
			return nil, -1, err
		}
		defer s.put(e)
		return f(s, e, r)
	}
}

// handle carries out one request.
func (s *Server) handle(op wire.Op, b []byte) (wire.Message, int, error) {
	if op >= wire.OpMax || handlers[op] == nil {
		return nil, -1, unix.EBADMSG
	}
	return handlers[op](s, b)
}

func (s *Server) hello(r *wire.HelloReq) (wire.Message, int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Version != wire.Version || s.lifeline < 0 {
		return nil, -1, unix.EBADMSG
	}
	fd := s.lifeline
	s.lifeline = -1
	return &wire.HelloRep{MaxHandles: uint32(s.maxHandles)}, fd, nil
}

func (s *Server) attach(r *wire.AttachReq) (wire.Message, int, error) {
	m := s.mounts[r.Mount]
	if m == nil {
		return nil, -1, unix.ENODEV
	}
	a, _, err := stat(m.FD, "")
	if err != nil {
		return nil, -1, err
	}
	h, err := s.addHandle(m.file) // which is never closed: the mount has a reference
	if err != nil {
		return nil, -1, err
	}
	return &wire.AttachRep{Root: h, ReadOnly: m.ReadOnly, Attr: a}, -1, nil
}
