package syscalls

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/sentry/kernel"
	"moat/sentry/mm"
	"moat/sentry/usermem"
)

// Calls on the memory of other processes, and memory policies for a machine of one node.

func init() {
	register(
		full(310, "process_vm_readv", "int iovec int iovec int hex", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return processVM(t, a, false) }),
		full(311, "process_vm_writev", "int iovec int iovec int hex", func(t *kernel.Task, a kernel.Args) (uintptr, error) { return processVM(t, a, true) }),
		full(440, "process_madvise", "fd iovec int madvise hex", sysProcessMadvise),
		partial(237, "mbind", "ptr size int ptr int hex", "one node: checked, then ignored", sysMbind),
		partial(238, "set_mempolicy", "int ptr int", "one node: checked, then ignored", sysSetMempolicy),
		partial(239, "get_mempolicy", "ptr ptr int ptr hex", "always the default policy", sysGetMempolicy),
		full(256, "migrate_pages", "int int ptr ptr", sysMigratePages),
		full(279, "move_pages", "int int ptr ptr ptr hex", sysMovePages),
		absent(450, "set_mempolicy_home_node", "one node"),
	)
}

// targetMM returns the address space of a process that t may access, with a user (DecUsers).
func targetMM(t *kernel.Task, pid int32) (*mm.MemoryManager, error) {
	target := t.PIDNamespace().Task(pid)
	if target == nil {
		return nil, unix.ESRCH
	}
	return mmOf(t, target, unix.EPERM)
}

func mmOf(t, target *kernel.Task, denied unix.Errno) (*mm.MemoryManager, error) {
	m := target.MemoryManager()
	if m == nil || !m.IncUsersIfAlive() {
		return nil, unix.ESRCH
	}
	if !t.MayAccess(target, false) {
		m.DecUsers()
		return nil, denied
	}
	return m, nil
}

// remoteIovecs copies in iovecs whose addresses are another process'.
func remoteIovecs(t *kernel.Task, addr hostarch.Addr, n uint64, m usermem.IO) (usermem.IOSequence, error) {
	if n > linux.UIO_MAXIOV {
		return usermem.IOSequence{}, unix.EINVAL
	}
	raw := make([]byte, n*16)
	if _, err := t.CopyIn(addr, raw); err != nil && n > 0 {
		return usermem.IOSequence{}, unix.EFAULT
	}
	s := usermem.IOSequence{IO: m}
	total := uint64(0)
	for ; len(raw) > 0; raw = raw[16:] {
		base, l := binary.LittleEndian.Uint64(raw), binary.LittleEndian.Uint64(raw[8:])
		if int64(l) < 0 {
			return s, unix.EINVAL
		}
		if base+l < base {
			return s, unix.EFAULT
		}
		l = min(l, mm.MaxRW-total)
		if total += l; l > 0 {
			s.Addrs = append(s.Addrs, hostarch.AddrRange{Start: hostarch.Addr(base), End: hostarch.Addr(base + l)})
		}
	}
	return s, nil
}

// processVM is process_vm_readv(2) and process_vm_writev(2) (mm/process_vm_access.c).
func processVM(t *kernel.Task, a kernel.Args, write bool) (uintptr, error) {
	if a[5] != 0 || a[2].Uint64() > linux.UIO_MAXIOV || a[4].Uint64() > linux.UIO_MAXIOV {
		return 0, unix.EINVAL
	}
	local, err := t.CopyInIovecs(a[1].Pointer(), int(a[2].Uint64()))
	if err != nil || local.NumBytes() == 0 {
		return 0, err
	}
	remote, err := remoteIovecs(t, a[3].Pointer(), a[4].Uint64(), nil)
	if err != nil {
		return 0, err
	}
	n := min(local.NumBytes(), remote.NumBytes())
	if n == 0 {
		return 0, nil
	}
	m, err := targetMM(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	defer m.DecUsers()
	remote.IO = m.Remote()
	src, dst := remote, local
	if write {
		src, dst = local, remote
	}
	var buf [16 << 10]byte
	done := int64(0)
	for done < n {
		c, rerr := src.TakeFirst(min(n-done, int64(len(buf)))).CopyIn(buf[:min(n-done, int64(len(buf)))])
		w, werr := dst.CopyOut(buf[:c])
		done += int64(w)
		if rerr != nil || werr != nil {
			if done > 0 {
				return uintptr(done), nil
			}
			return 0, unix.EFAULT
		}
		src, dst = src.DropFirst(int64(w)), dst.DropFirst(int64(w))
		if t.Killed() {
			break
		}
	}
	return uintptr(done), nil
}

func sysProcessMadvise(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a[4] != 0 {
		return 0, unix.EINVAL
	}
	seq, err := remoteIovecs(t, a[1].Pointer(), a[2].Uint64(), nil)
	if err != nil {
		return 0, err
	}
	p, err := pidOfFD(t, a[0].Int(), true)
	if err != nil {
		return 0, err
	}
	target, err := p.Task(t.Kernel())
	if err != nil {
		return 0, err
	}
	advice := a[3].Int()
	m, err := mmOf(t, target, unix.EACCES)
	if err != nil {
		return 0, err
	}
	defer m.DecUsers()
	if m != t.MemoryManager() {
		switch advice {
		case unix.MADV_COLD, unix.MADV_PAGEOUT, unix.MADV_WILLNEED, 25: // MADV_COLLAPSE
		default:
			return 0, unix.EINVAL
		}
		if !t.Credentials().HasCap(linux.CAP_SYS_NICE) {
			return 0, unix.EPERM
		}
	}
	done := uint64(0)
	for _, ar := range seq.Addrs {
		if err := m.MAdvise(t.MMCaller(), ar.Start, uint64(ar.Length()), advice); err != nil {
			if done > 0 {
				break
			}
			return 0, err
		}
		done += uint64(ar.Length())
	}
	return uintptr(done), nil
}

// Memory policies (include/uapi/linux/mempolicy.h).
const (
	mpolDefault, mpolPreferred, mpolBind, mpolInterleave, mpolLocal, mpolMax = 0, 1, 2, 3, 4, 7
	mpolModeFlags                                                            = 0xe000
	mpolFNode, mpolFAddr, mpolFMemsAllowed                                   = 1, 2, 4
	maxNodes                                                                 = 1024
)

// nodeMask copies in a node mask of n-1 bits and reports whether it names node 0, and whether it names any node that is not there.
func nodeMask(t *kernel.Task, addr hostarch.Addr, n uint64) (first, others bool, err error) {
	if n--; addr == 0 || n == 0 || n == ^uint64(0) {
		return false, false, nil
	}
	if n > hostarch.PageSize*8 {
		return false, false, unix.EINVAL
	}
	for i := uint64(0); i < (n+63)/64; i++ {
		w, err := t.CopyInUint64(addr + hostarch.Addr(8*i))
		if err != nil {
			return false, false, unix.EFAULT
		}
		if rest := n - 64*i; rest < 64 {
			w &= 1<<rest - 1
		}
		if i == 0 {
			first = w&1 != 0
			w &^= 1
		}
		others = others || w != 0
	}
	return first, others, nil
}

// checkPolicy validates a mode and its nodes as mpol_new and mpol_set_nodemask do.
func checkPolicy(t *kernel.Task, mode uint32, addr hostarch.Addr, n uint64) error {
	if mode&^uint32(mpolModeFlags) >= mpolMax {
		return unix.EINVAL
	}
	first, others, err := nodeMask(t, addr, n)
	if err != nil {
		return err
	}
	empty := !first && !others
	switch mode &^ uint32(mpolModeFlags) {
	case mpolDefault:
		if !empty {
			return unix.EINVAL
		}
	case mpolPreferred:
		if !empty && !first {
			return unix.EINVAL
		}
	case mpolLocal:
		if !empty {
			return unix.EINVAL
		}
	default:
		if !first {
			return unix.EINVAL
		}
	}
	return nil
}

func sysSetMempolicy(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return 0, checkPolicy(t, a[0].Uint(), a[1].Pointer(), a[2].Uint64())
}

func sysMbind(t *kernel.Task, a kernel.Args) (uintptr, error) {
	addr, n, flags := a[0].Pointer(), a[1].Uint64(), a[5].Uint()
	if flags&^7 != 0 || addr&(hostarch.PageSize-1) != 0 {
		return 0, unix.EINVAL
	}
	if err := checkPolicy(t, a[2].Uint(), a[3].Pointer(), a[4].Uint64()); err != nil {
		return 0, err
	}
	end, ok := addr.AddLength(n)
	if !ok {
		return 0, unix.EINVAL
	}
	covered := addr
	t.MemoryManager().Mappings(addr, false, func(m *mm.Mapping) bool {
		if m.Range.Start <= covered {
			covered = m.Range.End
		}
		return m.Range.Start <= covered && covered < end
	})
	if n > 0 && covered < end {
		return 0, unix.EFAULT
	}
	return 0, nil
}

func sysGetMempolicy(t *kernel.Task, a kernel.Args) (uintptr, error) {
	modeAddr, maskAddr, maxNode, addr, flags := a[0].Pointer(), a[1].Pointer(), a[2].Uint64(), a[3].Pointer(), a[4].Uint64()
	if flags&^(mpolFNode|mpolFAddr|mpolFMemsAllowed) != 0 || maskAddr != 0 && maxNode < 1 {
		return 0, unix.EINVAL
	}
	mask := uint64(0)
	mode := uint32(mpolDefault)
	switch {
	case flags&mpolFMemsAllowed != 0:
		if flags&(mpolFNode|mpolFAddr) != 0 {
			return 0, unix.EINVAL
		}
		mask = 1
	case flags&mpolFAddr != 0:
		if _, err := t.CopyIn(addr, make([]byte, 1)); err != nil {
			return 0, unix.EFAULT
		}
	case addr != 0 || flags&mpolFNode != 0:
		return 0, unix.EINVAL
	}
	if modeAddr != 0 {
		if err := t.CopyOutUint32(modeAddr, mode); err != nil {
			return 0, unix.EFAULT
		}
	}
	if maskAddr != 0 {
		if n := (maxNode - 1 + 63) / 64; n > 0 {
			out := make([]byte, 8*min(n, maxNodes/64))
			binary.LittleEndian.PutUint64(out, mask)
			if _, err := t.CopyOut(maskAddr, out); err != nil {
				return 0, unix.EFAULT
			}
		}
	}
	return 0, nil
}

func sysMigratePages(t *kernel.Task, a kernel.Args) (uintptr, error) {
	for _, addr := range []hostarch.Addr{a[2].Pointer(), a[3].Pointer()} {
		if _, others, err := nodeMask(t, addr, a[1].Uint64()); err != nil {
			return 0, err
		} else if others && addr == a[3].Pointer() {
			return 0, unix.EINVAL
		}
	}
	if pid := a[0].Int(); pid != 0 {
		m, err := targetMM(t, pid)
		if err != nil {
			return 0, err
		}
		m.DecUsers()
	}
	return 0, nil
}

// sysMovePages answers where pages are: on node 0, or ENOENT if they are not there (mm/migrate.c do_pages_stat).
func sysMovePages(t *kernel.Task, a kernel.Args) (uintptr, error) {
	n, pages, nodes, status, flags := a[1].Uint64(), a[2].Pointer(), a[3].Pointer(), a[4].Pointer(), a[5].Uint()
	if flags&^6 != 0 || n > 1<<20 {
		return 0, unix.EINVAL
	}
	m := t.MemoryManager()
	if pid := a[0].Int(); pid != 0 {
		var err error
		if m, err = targetMM(t, pid); err != nil {
			return 0, err
		}
		defer m.DecUsers()
	}
	for i := hostarch.Addr(0); i < hostarch.Addr(n); i++ {
		p, err := t.CopyInUint64(pages + 8*i)
		if err != nil {
			return 0, unix.EFAULT
		}
		st := int32(0)
		if nodes != 0 {
			node, err := t.CopyInUint32(nodes + 4*i)
			if err != nil {
				return 0, unix.EFAULT
			}
			if node != 0 {
				return 0, unix.ENODEV
			}
		}
		var in [1]byte
		if m.MInCore(hostarch.Addr(p).RoundDown(), 1, in[:]) != nil {
			st = -int32(unix.EFAULT)
		} else if in[0] == 0 {
			st = -int32(unix.ENOENT)
		}
		if err := t.CopyOutUint32(status+4*i, uint32(st)); err != nil {
			return 0, unix.EFAULT
		}
	}
	return 0, nil
}
