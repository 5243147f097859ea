package boot

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Host is what the sentry has to know of the host, read while it still can.
type Host struct {
	CPUInfo string
	Cmdline string
	CPUs    int
	// Trim gives pages of the program, which come back as they are needed, back to the host.
	Trim func()
}

// ReadHost reads it.
func ReadHost() (*Host, error) {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return nil, err
	}
	return &Host{CPUInfo: string(info), Cmdline: "BOOT_IMAGE=/moat", CPUs: runtime.NumCPU()}, nil
}

// server is what all control connections talk to.
type server struct {
	host *Host
	trim *time.Timer // host.Trim is called when it fires
	// detached: the sandbox does not end with the connection of who started it.
	detached atomic.Bool
	// answering counts calls whose answer is on its way although the sandbox may end: those that tell how a process ended, and Start.
	answering atomic.Int32
	signals   chan os.Signal

	mu    sync.Mutex
	built *sandbox // +checklocks:mu
}

// forwarded are the signals that somebody on the host may send to the sentry and mean the container's first process.
var forwarded = []os.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGCONT, unix.SIGWINCH}

// Serve answers the control sockets. It returns when the connection of who started the sandbox closes before Detach: a sandbox that was not
// detached is ended by killing it.
func Serve(host *Host) error {
	time.Local = time.UTC
	// GOMAXPROCS that was set is not updated by the runtime, which would read cgroup files for it.
	// One more than CPUs: a goroutine that waits for its guest thread in a system call keeps its P for a while.
	runtime.GOMAXPROCS(host.CPUs + 1)
	// Each guest thread that runs takes a thread of ours that waits for it.
	debug.SetMaxThreads(200000)
	s := &server{host: host, signals: make(chan os.Signal, 16), trim: time.NewTimer(trimDelay)}
	tuneGC(s.trim)
	go func() { // which stays: to end a goroutine touches the program, too
		for range s.trim.C {
			host.Trim()
		}
	}()
	signal.Notify(s.signals, forwarded...)
	go s.accept()
	s.serve(ControlFD)
	if !s.detached.Load() {
		return errors.New("the control socket was closed")
	}
	select {}
}

// accept serves those who connect to the listening socket, if it is one.
func (s *server) accept() {
	for {
		fd, _, e := unix.Syscall6(unix.SYS_ACCEPT4, ListenFD, 0, 0, unix.SOCK_CLOEXEC, 0, 0)
		switch e {
		case 0:
			go s.serve(int(fd))
		case unix.EINTR, unix.ECONNABORTED:
		case unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS:
			time.Sleep(100 * time.Millisecond)
		default:
			return
		}
	}
}

// pass gives b what the host's signals are about.
func (s *server) pass(b *sandbox) {
	for sig := range s.signals {
		n := sig.(unix.Signal)
		if n == unix.SIGWINCH && b.first.c.Console {
			b.first.init.term.follow()
			continue
		}
		b.first.signal(&SignalArgs{Signal: int(n)})
	}
}

func (s *server) sandbox() (*sandbox, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.built == nil {
		return nil, errors.New("the sandbox was not created")
	}
	return s.built, nil
}

// container is the container of an ID.
func (s *server) container(id string) (*container, error) {
	b, err := s.sandbox()
	if err != nil {
		return nil, err
	}
	return b.find(id)
}

// with calls f with the container of an ID.
func (s *server) with(id string, f func(*container)) error {
	b, err := s.container(id)
	if err == nil {
		f(b)
	}
	return err
}

// create builds the sandbox, once.
func (s *server) create(c *Config) (*sandbox, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.built != nil {
		return nil, errors.New("the sandbox was created already")
	}
	b, err := build(c, s.host)
	if err == nil {
		s.built = b
		if c.Standalone {
			go s.pass(b)
		} else {
			signal.Stop(s.signals)
		}
	}
	return b, err
}

// end is the end of a Standalone sandbox: its status becomes the process'.
func (s *server) end(b *sandbox) {
	st := b.wait()
	// Who waits for a process by Exec should hear of it; who is too slow sees that the container was killed.
	for range 100 {
		if s.answering.Load() == 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	exit(st)
}

// initOOM is called when the first process is to be killed for want of memory, which ends the container. Who watches the container's cgroup, as
// Docker does, learns of it only from the host: so the sandbox uses what its cgroup has left, and dies of that as its first process would. Where the
// host's limit is another, nothing happens here.
func (b *sandbox) initOOM() {
	limit := b.first.cg.MemoryMax.Load()
	if limit == 0 {
		return
	}
	record(ExitStatus{Signal: int(unix.SIGKILL), OOM: true})
	const step = 1 << 20
	var hold [][]byte
	for n := uint64(0); n < 2*Overhead(limit); n += step {
		m := make([]byte, step)
		for i := 0; i < step; i += 4096 {
			m[i] = 1
		}
		hold = append(hold, m)
	}
	runtime.KeepAlive(hold)
}

// exit ends the sentry with a status, which it leaves in the state directory too.
func exit(st ExitStatus) {
	record(st)
	os.Exit(st.Shell())
}

// record writes how the first process ended, over what was there.
func record(st ExitStatus) {
	if b, err := json.Marshal(&st); err == nil {
		unix.Seek(ExitFD, 0, unix.SEEK_SET)
		unix.Write(ExitFD, b)
	}
}

// reply turns an error into what the command line shows.
func (r *StartReply) set(err error) {
	var e *startError
	switch {
	case err == nil:
	case errors.As(err, &e):
		r.Error, r.Code = e.text, e.code
	default:
		r.Error, r.Code = err.Error(), ExitFailure
	}
}

// startError is an error with an exit code of its own.
type startError struct {
	text string
	code int
}

func (e *startError) Error() string { return e.text }

// newLog writes to the log descriptor.
func newLog(debug bool) *slog.Logger {
	o := slog.HandlerOptions{Level: slog.LevelWarn}
	if debug {
		o.Level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(os.NewFile(LogFD, "log"), &o))
}

// die ends the sandbox with one line.
func die(format string, a ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", a...)
	os.Exit(1)
}
