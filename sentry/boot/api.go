package boot

import (
	"github.com/opencontainers/runtime-spec/specs-go"
)

// The descriptors that the command line hands to `moat boot`, by number. Standard input and output are /dev/null, standard
// error is a pipe of which the command line keeps the end: the sentry's last words.
const (
	ControlFD = 3 // the control socket: net/rpc with its JSON codec
	GoferFD   = 4 // the gofer's socket
	LogFD     = 5 // where log lines go
	StdioFD   = 6 // three of them: the first process' standard input, output and error
	lastFD    = StdioFD + 2
)

// Mount is one tree or file that the gofer serves.
type Mount struct {
	// ID is what the gofer knows it by. Mount 0 is the root.
	ID uint32
	// Destination is where it is mounted in the container; mounts are made in order, this one before the Before'th of Spec.Mounts.
	Destination string
	Before      int
	ReadOnly    bool
	// Shared: others on the host change the tree too.
	Shared bool
	// Overlay puts a memory layer over the tree: what is written stays in the sandbox.
	Overlay bool
	// Options are the mount options of config.json that the sentry has to honour (nosuid, nodev, noexec, ...).
	Options []string
	// Source is shown in /proc/mounts.
	Source string
}

// Config is everything that the sandbox is built from.
type Config struct {
	Spec     *specs.Spec
	Platform string
	// Mounts are the gofer's, in order of Before. An entry of config.json that binds a host path is here, and not in Spec.Mounts.
	Mounts []Mount
	// Memory bounds the sandbox's RAM in bytes; 0: the host's.
	Memory uint64
	// Network is "none" or "loopback".
	Network string
	// User overrides Spec.Process.User: a name or number, and after a colon a group, looked up in the container's /etc/passwd and /etc/group.
	User string
	// Plain makes the first process an ordinary one that dies of signals (`moat do`), not an init that ignores those it does not handle.
	Plain bool
	// Strace prints the system calls, Debug more log lines.
	Strace, Debug bool
	// Unsafe leaves the seccomp filter out.
	Unsafe bool
	// Terminal: the first process gets a pseudoterminal of the sandbox, connected to StdioFD and StdioFD+1.
	Terminal   bool
	Rows, Cols uint16
	// ErrIsTerminal: standard error is the terminal too.
	ErrIsTerminal bool
}

// StartReply answers Sandbox.Start.
type StartReply struct {
	// Error says why the first process was not started, and Code what the command line exits with; "" if it was.
	Error string
	Code  int
}

// ExitStatus answers Sandbox.Wait: how the first process ended.
type ExitStatus struct {
	// Code is the exit code; Signal is not 0 if it was killed by one.
	Code, Signal int
	// Lost is not "" if the process was killed because the host has taken a part of it away, and says so.
	Lost string
}

// SignalArgs are Sandbox.Signal's.
type SignalArgs struct {
	Signal int
	// Group: to the foreground process group, as a key of a terminal does it.
	Group bool
}

// WinSize are Sandbox.Resize's arguments.
type WinSize struct{ Rows, Cols uint16 }

// None is no arguments, or no reply.
type None struct{}

// Exit codes of the command line when it is moat that fails, as env(1), timeout(1) and Docker have them.
const (
	ExitFailure       = 125
	ExitNotExecutable = 126
	ExitNotFound      = 127
)
