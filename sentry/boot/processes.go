package boot

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"

	"moat/sentry/kernel"
	"moat/sentry/mm"
)

// maxArgs bounds what Processes tells of a process' arguments.
const maxArgs = 4096

// processes lists the container's processes, zombies included, in order of their numbers.
func (b *container) processes() []ProcessInfo {
	var l []ProcessInfo
	for _, tg := range b.k.Members(b.cg) {
		l = append(l, b.describe(tg))
	}
	slices.SortFunc(l, func(x, y ProcessInfo) int { return int(x.PID) - int(y.PID) })
	return l
}

func (b *container) describe(tg *kernel.ThreadGroup) ProcessInfo {
	ns, t := b.ns.PIDForChildren, tg.Leader()
	user, sys := tg.CPUTimes()
	p := ProcessInfo{
		PID: tg.PIDIn(ns), UID: int32(t.Credentials().EUID), Threads: tg.NumTasks(), Name: t.Name(), State: t.State().String()[:1],
		Start: tg.StartTime().Unix(), CPU: int64(user + sys),
	}
	if o := tg.Parent(); o != nil {
		p.PPID = o.PIDIn(ns)
	}
	if c := tg.ControllingTTY(); c != nil {
		p.TTY = c.Name()
	}
	if m := t.MemoryManager(); m != nil && m.IncUsersIfAlive() {
		p.RSS = int64(m.RSS())
		p.Args = arguments(m)
		if h, ok := m.AddressSpace().(interface{ PID() int }); ok {
			p.Host = h.PID()
		}
		m.DecUsers()
	}
	return p
}

// arguments are a process' as ps(1) shows them.
func arguments(m *mm.MemoryManager) (args []string) {
	a := m.Areas()
	if a.ArgEnd <= a.ArgStart {
		return nil
	}
	buf := make([]byte, min(uint64(a.ArgEnd-a.ArgStart), maxArgs))
	n, _ := m.Force(hostarch.Addr(a.ArgStart), buf, false)
	for _, s := range bytes.Split(bytes.TrimRight(buf[:n], "\x00"), []byte{0}) {
		args = append(args, string(s))
	}
	return args
}

// hostMemory reads the two files of Config.HostMemory; 0 is what it cannot read.
func hostMemory(fds []int) (used, inactive, active uint64) {
	buf := make([]byte, 4096)
	n, _ := unix.Preadv2(fds[0], [][]byte{buf}, 0, 0)
	used, _ = strconv.ParseUint(strings.TrimSpace(string(buf[:max(n, 0)])), 10, 64)
	n, _ = unix.Preadv2(fds[1], [][]byte{buf}, 0, 0)
	for l := range strings.Lines(string(buf[:max(n, 0)])) {
		switch name, v, _ := strings.Cut(strings.TrimSpace(l), " "); name {
		case "inactive_file":
			inactive, _ = strconv.ParseUint(v, 10, 64)
		case "active_file":
			active, _ = strconv.ParseUint(v, 10, 64)
		}
	}
	return used, inactive, active
}

// usage tells what the guest uses.
func (b *container) usage() Usage {
	user, sys := b.k.CPUTimes(b.cg)
	return Usage{Memory: b.cg.Account().Used(), MemoryPeak: b.cg.Account().Peak(), MemoryLimit: b.cg.Account().Limit(), Tasks: b.cg.Tasks(), OOMKills: b.cg.OOMKills(),
		CPUUser: uint64(user), CPUSystem: uint64(sys)}
}
