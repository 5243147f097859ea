package kernel

import (
	"sync"

	"golang.org/x/sys/unix"
	"moat/sentry/kernel/auth"
	"moat/sentry/kernel/ipc"
	"moat/sentry/vfs"
)

// nsID is what all namespaces have: an inode number in nsfs (/proc/PID/ns), and an owner.
type nsID struct {
	ino    uint64
	userNS *auth.UserNamespace
}

// Ino is the inode number of the namespace, as readlink of /proc/PID/ns shows it.
func (n nsID) Ino() uint64 { return n.ino }

// UserNamespace owns the namespace.
func (n nsID) UserNamespace() *auth.UserNamespace { return n.userNS }

// firstNSIno is where Linux's dynamic namespace inode numbers begin (PROC_DYNAMIC_FIRST).
const firstNSIno = 0xF0000000

func (k *Kernel) newNSID(owner *auth.UserNamespace) nsID {
	return nsID{firstNSIno + k.nsSeq.Add(1), owner}
}

// UTSNamespace is uts_namespaces(7).
type UTSNamespace struct {
	nsID

	mu     sync.RWMutex
	host   string // +checklocks:mu
	domain string // +checklocks:mu
}

// NewUTSNamespace returns a UTS namespace with the names given.
func (k *Kernel) NewUTSNamespace(host, domain string, user *auth.UserNamespace) *UTSNamespace {
	return &UTSNamespace{nsID: k.newNSID(user), host: host, domain: domain}
}

// Names are the host and domain names.
func (u *UTSNamespace) Names() (host, domain string) {
	u.mu.RLock()
	defer u.mu.RUnlock()
	return u.host, u.domain
}

// SetHost sets the host name.
func (u *UTSNamespace) SetHost(s string) {
	u.mu.Lock()
	u.host = s
	u.mu.Unlock()
}

// SetDomain sets the NIS domain name.
func (u *UTSNamespace) SetDomain(s string) {
	u.mu.Lock()
	u.domain = s
	u.mu.Unlock()
}

// IPCNamespace is ipc_namespaces(7): the System V objects, and what others keep by namespace in Slot.
type IPCNamespace struct {
	nsID
	Sem   *ipc.Semaphores
	Shm   *ipc.Segments
	Msg   *ipc.Queues
	slots sync.Map
}

// NewIPCNamespace returns an empty IPC namespace.
func (k *Kernel) NewIPCNamespace(user *auth.UserNamespace) *IPCNamespace {
	return &IPCNamespace{nsID: k.newNSID(user), Sem: ipc.NewSemaphores(user), Shm: ipc.NewSegments(user, k.memory, k.shmDev),
		Msg: ipc.NewQueues(user)}
}

// Slot returns the registry stored under key, made by mk on first use.
func (n *IPCNamespace) Slot(key any, mk func() any) any {
	if v, ok := n.slots.Load(key); ok {
		return v
	}
	v, _ := n.slots.LoadOrStore(key, mk())
	return v
}

// NetNamespace is a placeholder for network_namespaces(7): Stack is what sentry/net keeps for it.
type NetNamespace struct {
	nsID
	Stack any
	// Sysctls are the values that were set below /proc/sys/net, by their paths in /proc/sys.
	Sysctls sync.Map
}

// CgroupNamespace is cgroup_namespaces(7); Root is the cgroup that shows as "/".
type CgroupNamespace struct {
	nsID
	Root *Cgroup
}

// TimeNamespace is time_namespaces(7): offsets in nanoseconds added to the clocks. They may change until the first task enters.
type TimeNamespace struct {
	nsID

	mu        sync.Mutex
	monotonic int64 // +checklocks:mu
	boottime  int64 // +checklocks:mu
	frozen    bool  // +checklocks:mu
}

// Offsets are added to CLOCK_MONOTONIC and CLOCK_BOOTTIME, in nanoseconds.
func (n *TimeNamespace) Offsets() (monotonic, boottime int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.monotonic, n.boottime
}

// SetOffsets is a write to /proc/PID/timens_offsets: EACCES once a task is inside.
func (n *TimeNamespace) SetOffsets(monotonic, boottime int64) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.frozen {
		return unix.EACCES
	}
	n.monotonic, n.boottime = monotonic, boottime
	return nil
}

func (n *TimeNamespace) freeze() {
	n.mu.Lock()
	n.frozen = true
	n.mu.Unlock()
}

// Namespaces are a task's namespaces other than user and PID (struct nsproxy). The value is copied whole; what it points to is shared.
type Namespaces struct {
	UTS    *UTSNamespace
	IPC    *IPCNamespace
	Net    *NetNamespace
	Cgroup *CgroupNamespace
	Time   *TimeNamespace
	// TimeForChildren and PIDForChildren are what children are born into.
	TimeForChildren *TimeNamespace
	PIDForChildren  *PIDNamespace
	Mount           *vfs.MountNamespace
}
