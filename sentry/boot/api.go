package boot

import (
	"github.com/opencontainers/runtime-spec/specs-go"

	"moat/sentry/net/inet"
)

// The descriptors that the command line hands to `moat boot`, by number. Standard input and output are /dev/null, standard
// error is a pipe or file for the sentry's last words.
const (
	ControlFD = 3  // the control socket of who started the sandbox
	GoferFD   = 4  // the gofer's socket
	LogFD     = 5  // where log lines go
	StdioFD   = 6  // three of them: the first process' standard input, output and error
	ListenFD  = 9  // a listening socket for more control connections; /dev/null if there is none
	ExitFD    = 10 // where a Standalone sandbox writes its ExitStatus as JSON; /dev/null else
	ExtraFD   = 11 // Config.First.Extra descriptors that the first process gets from number 3 on
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
	// Follows: what the host mounts below, and unmounts, is part of the tree.
	Follows bool
	// Overlay puts a memory layer over the tree: what is written stays in the sandbox.
	Overlay bool
	// Options are the mount options of config.json that the sentry has to honour (nosuid, nodev, noexec, ...).
	Options []string
	// UIDMappings and GIDMappings are this mount's own: the files' IDs are their first column, the container sees the second.
	UIDMappings, GIDMappings []specs.LinuxIDMapping
	// Source is shown in /proc/mounts, Root in /proc/PID/mountinfo: its path within its file system on the host.
	Source, Root string
}

// Process is a process that is started from outside, in container ID.
type Process struct {
	ID string
	// Spec is what config.json calls process.
	Spec *specs.Process
	// User overrides Spec.User: a name or number, and after a colon a group, looked up in the container's /etc/passwd and /etc/group.
	User string
	// Seccomp is linux.seccomp as struct sock_filter programs.
	Seccomp [][]byte
	// Terminal: the process gets a pseudoterminal of the sandbox, connected to its standard input and output on the host.
	Terminal   bool
	Rows, Cols uint16
	// ErrIsTerminal: standard error is the terminal too.
	ErrIsTerminal bool
	// PlainOutput: who reads what the terminal prints is no terminal.
	PlainOutput bool
	// Extra is the number of descriptors that the process gets beyond the first three.
	Extra int
}

// Spec is what the sentry is told of config.json. Decoding the whole would cost it two milliseconds and a quarter of a MiB for the types alone.
type Spec struct {
	Hostname, Domainname       string
	Mounts                     []specs.Mount
	MaskedPaths, ReadonlyPaths []string
	Sysctl                     map[string]string
	Devices                    []specs.LinuxDevice
	RootfsPropagation          string
	Resources                  *specs.LinuxResources
	UIDMappings, GIDMappings   []specs.LinuxIDMapping
}

// Config is everything that the sandbox is built from, or another container in it (Session.Add): of that one's, what concerns the sandbox as a whole
// has no meaning.
type Config struct {
	// ID is the container's; all requests about it have it.
	ID   string
	Spec Spec
	// Share are the namespaces that a container of Add does not get for itself: by kind, the ID of the container whose they are.
	Share    map[specs.LinuxNamespaceType]string
	Platform string
	// Mounts are the gofer's, in order of Before. An entry of config.json that binds a host path is here, and not in Spec.Mounts.
	Mounts []Mount
	// HostMemory: the files of the sandbox's cgroup on the host that count its memory (memory.current or memory.usage_in_bytes, and memory.stat) come with Create.
	HostMemory bool
	// Memory bounds the sandbox's RAM in bytes; 0: the host's.
	Memory uint64
	// Network is "none", "loopback" (the same), or "sandbox": Links, whose descriptors come on the socket LinksFD, in one message, before Create,
	// or "host": the sockets are the host's, and Links only shown. Of a container of Add the Links are its own network's, if it shares none.
	Network string
	Links   []inet.Link
	// Loop leads to a name server on the namespace's lo; its descriptor is the last. It may be nil.
	Loop    *inet.HostLoop
	LinksFD int
	// Pcap is the descriptor of a file for what the links carry; 0: none.
	Pcap int
	// First is the first process.
	First Process
	// Plain makes the first process an ordinary one that dies of signals (`moat do`), not an init that ignores those it does not handle.
	Plain bool
	// Standalone: the sandbox outlives the command line from Detach on, and its own exit status is the first process': 128+n for signal n.
	Standalone bool
	// Console: StdioFD is the sentry's controlling terminal, which tells it of changes of the window's size.
	Console bool
	// Strace prints the system calls, Debug more log lines.
	Strace, Debug bool
	// Unsafe leaves the seccomp filter out.
	Unsafe bool
}

// StartReply answers Session.Create, Start and Exec.
type StartReply struct {
	// Error says why the process was not started, and Code what the command line exits with; "" if it was.
	Error string
	Code  int
	// PID is the process' number in the container.
	PID int32
}

// StartArgs are Session.Start's.
type StartArgs struct {
	ID string
	// Hooks are run in the container before its first process, with State on their standard input.
	Hooks []specs.Hook
	State string
}

// ExitStatus is how a process ended.
type ExitStatus struct {
	// Code is the exit code; Signal is not 0 if it was killed by one.
	Code, Signal int
	// Lost is not "" if the process was killed because the host has taken a part of it away, and says so.
	Lost string
	// OOM: the sandbox has used up its cgroup's memory because the first process had none left.
	OOM bool
}

// Shell is the status as a shell's $?: 128+n for signal n.
func (s ExitStatus) Shell() int {
	if s.Signal != 0 {
		return 128 + s.Signal
	}
	return s.Code
}

// SignalArgs are Session.Signal's.
type SignalArgs struct {
	ID     string
	Signal int
	// PID is a process of the container; 0: the first.
	PID int32
	// Group: to the foreground process group, as a key of a terminal does it. All: to every process.
	Group, All bool
}

// WinSize are Session.Resize's arguments: PID is 0 for the first process' terminal, else that of one started by Exec.
type WinSize struct {
	Rows, Cols uint16
	ID         string
	PID        int32
}

// ProcessID names a process that was started by Exec: Session.WaitExec's arguments.
type ProcessID struct {
	ID  string
	PID int32
}

// UpdateArgs are Session.Update's.
type UpdateArgs struct {
	ID        string
	Resources *specs.LinuxResources
}

// AwaitOOMArgs are Session.AwaitOOM's.
type AwaitOOMArgs struct {
	ID   string
	Seen uint64
}

// FreezeArgs are Session.Freeze's.
type FreezeArgs struct {
	ID string
	On bool
}

// Status answers Session.Status.
type Status struct {
	// Started: the first process runs, or has run. Frozen: by Session.Freeze.
	Started, Frozen bool
}

// ProcessInfo is one process of the container.
type ProcessInfo struct {
	PID, PPID, UID int32
	Threads        int
	// State is the letter of proc_pid_stat(5); TTY the terminal's name below /dev or "".
	State, TTY, Name string
	Args             []string
	// Start is in seconds since the epoch; CPU in nanoseconds; RSS in bytes.
	Start, CPU, RSS int64
	// Host is the process that stands for the address space, in the sentry's own PID namespace; 0 if there is none.
	Host int
}

// Usage answers Session.Usage: what the container's tasks use, memory in bytes.
type Usage struct {
	Memory, MemoryPeak, MemoryLimit uint64
	Tasks                           int
	// CPUUser and CPUSystem are in nanoseconds.
	CPUUser, CPUSystem uint64
	// OOMKills counts processes that were killed for lack of memory.
	OOMKills uint64
}

// None is no arguments, or no reply.
type None struct{}

// Exit codes of the command line when it is moat that fails, as env(1), timeout(1) and Docker have them.
const (
	ExitFailure       = 125
	ExitNotExecutable = 126
	ExitNotFound      = 127
)
