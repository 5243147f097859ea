package boot

import (
	"errors"
	"fmt"
	"net/rpc"
	"net/rpc/jsonrpc"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Host is what the sentry has to know of the host, read while it still can.
type Host struct {
	CPUInfo string
	Cmdline string
	CPUs    int
}

// ReadHost reads it.
func ReadHost() (*Host, error) {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return nil, err
	}
	return &Host{CPUInfo: string(info), Cmdline: "BOOT_IMAGE=/moat", CPUs: runtime.NumCPU()}, nil
}

// Sandbox is the service on the control socket.
type Sandbox struct {
	host *Host

	mu    sync.Mutex
	built *sandbox // +checklocks:mu
}

// Serve answers the control socket until it closes, which is never normal: the command line ends a sandbox by killing it.
func Serve(host *Host) error {
	time.Local = time.UTC
	// GOMAXPROCS that was set is not updated by the runtime, which would read cgroup files for it.
	// One more than CPUs: a goroutine that waits for its guest thread in a system call keeps its P for a while.
	runtime.GOMAXPROCS(host.CPUs + 1)
	// Each guest thread that runs takes a thread of ours that waits for it.
	debug.SetMaxThreads(200000)
	// The live heap is small: a few megabytes of garbage more cost less than collecting often.
	debug.SetGCPercent(200)
	srv := rpc.NewServer()
	if err := srv.RegisterName("Sandbox", &Sandbox{host: host}); err != nil {
		return err
	}
	conn := os.NewFile(ControlFD, "control")
	srv.ServeCodec(jsonrpc.NewServerCodec(conn))
	return errors.New("the control socket was closed")
}

// Start builds the sandbox and starts the first process.
func (s *Sandbox) Start(c *Config, r *StartReply) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.built != nil {
		return errors.New("the sandbox was started already")
	}
	b, err := build(c, s.host)
	if err != nil {
		var e *startError
		if errors.As(err, &e) {
			*r = StartReply{e.text, e.code}
		} else {
			*r = StartReply{err.Error(), ExitFailure}
		}
		return nil
	}
	s.built = b
	return nil
}

// startError is an error with an exit code of its own.
type startError struct {
	text string
	code int
}

func (e *startError) Error() string { return e.text }

func (s *Sandbox) sandbox() (*sandbox, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.built == nil {
		return nil, errors.New("the sandbox was not started")
	}
	return s.built, nil
}

// Wait returns when the first process has ended and the container's files are written back.
func (s *Sandbox) Wait(_ *None, st *ExitStatus) error {
	b, err := s.sandbox()
	if err != nil {
		return err
	}
	*st = b.wait()
	return nil
}

// Signal is kill(2) of the first process from outside.
func (s *Sandbox) Signal(a *SignalArgs, _ *None) error {
	b, err := s.sandbox()
	if err != nil {
		return err
	}
	return b.signal(a)
}

// Resize sets the terminal's size.
func (s *Sandbox) Resize(w *WinSize, _ *None) error {
	b, err := s.sandbox()
	if err != nil {
		return err
	}
	return b.resize(*w)
}

// Stacks answers with the stacks of all goroutines.
func (s *Sandbox) Stacks(_ *None, text *string) error {
	var b strings.Builder
	err := pprof.Lookup("goroutine").WriteTo(&b, 2)
	*text = b.String()
	return err
}

// newLog writes to the log descriptor.
func newLog(debug bool) *zap.Logger {
	enc := zap.NewDevelopmentEncoderConfig()
	enc.EncodeTime = zapcore.ISO8601TimeEncoder
	enc.CallerKey, enc.StacktraceKey = "", ""
	level := zapcore.WarnLevel
	if debug {
		level = zapcore.DebugLevel
	}
	out := zapcore.Lock(os.NewFile(LogFD, "log"))
	return zap.New(zapcore.NewCore(zapcore.NewConsoleEncoder(enc), out, level))
}

// die ends the sandbox with one line.
func die(format string, a ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", a...)
	os.Exit(1)
}
