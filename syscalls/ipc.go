package syscalls

import (
	"moat/sentry/kernel"
	"moat/sentry/kernel/auth"
	"moat/sentry/kernel/ipc"
	"moat/sentry/memmap"
	"moat/sentry/mm"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/marshal"
	"gvisor.dev/gvisor/pkg/marshal/primitive"
)

func init() {
	register(
		full(29, "shmget", "hex size hex", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return pidResult(t.IPC().Shm.Get(t, a[0].Int(), a[1].Uint64(), a[2].Uint()))
		}),
		full(30, "shmat", "int ptr hex", sysShmat),
		full(31, "shmctl", "int int ptr", sysShmctl),
		full(67, "shmdt", "ptr", sysShmdt),
		full(64, "semget", "hex int hex", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return pidResult(t.IPC().Sem.Get(t, a[0].Int(), a[1].Int(), a[2].Uint()))
		}),
		partial(65, "semop", "int ptr size", semNote, func(t *kernel.Task, a kernel.Args) (uintptr, error) { return semop(t, a, 0) }),
		full(66, "semctl", "int int int ptr", sysSemctl),
		partial(220, "semtimedop", "int ptr size timespec", semNote, func(t *kernel.Task, a kernel.Args) (uintptr, error) { return semop(t, a, a[3].Pointer()) }),
		full(68, "msgget", "hex hex", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return pidResult(t.IPC().Msg.Get(t, a[0].Int(), a[1].Uint()))
		}),
		full(69, "msgsnd", "int ptr size hex", sysMsgsnd),
		full(70, "msgrcv", "int ptr size int hex", sysMsgrcv),
		full(71, "msgctl", "int int ptr", sysMsgctl),
	)
}

const (
	semNote = "SEM_UNDO is kept by process, whether or not CLONE_SYSVSEM was given"
	// ipc64 is IPC_64, which user space of x86-64 may set or not.
	ipc64 = 0x100
)

// perm is p as t sees it.
func perm(t *kernel.Task, p *ipc.Perm) linux.IPCPerm {
	ns := t.UserNamespace()
	return linux.IPCPerm{Key: uint32(p.Key), UID: ns.UIDOrOverflow(p.UID), GID: ns.GIDOrOverflow(p.GID), CUID: ns.UIDOrOverflow(p.CUID), CGID: ns.GIDOrOverflow(p.CGID),
		Mode: p.Mode, Seq: p.Seq}
}

// owner is what IPC_SET takes from p: EINVAL for IDs that t's user namespace does not have.
func permOwner(t *kernel.Task, p *linux.IPCPerm) (auth.KUID, auth.KGID, error) {
	ns := t.UserNamespace()
	uid, gid := ns.MapToKUID(p.UID), ns.MapToKGID(p.GID)
	if uint32(uid) == auth.NoID || uint32(gid) == auth.NoID {
		return 0, 0, unix.EINVAL
	}
	return uid, gid, nil
}

// copyOutStat writes what an IPC_STAT, or a stat by index, which returns the ID, found.
func copyOutStat(t *kernel.Task, p hostarch.Addr, ds marshal.Marshallable, byIndex bool, id int32) (uintptr, error) {
	if _, err := ds.CopyOut(t, p); err != nil || !byIndex {
		return 0, err
	}
	return uintptr(id), nil
}

func sysShmat(t *kernel.Task, a kernel.Args) (uintptr, error) {
	addr, flags := a[1].Pointer(), a[2].Uint()
	if addr != 0 && addr%hostarch.PageSize != 0 {
		if flags&linux.SHM_RND == 0 {
			return 0, unix.EINVAL
		}
		if addr = addr &^ (hostarch.PageSize - 1); addr == 0 && flags&linux.SHM_REMAP != 0 {
			return 0, unix.EINVAL
		}
	} else if addr == 0 && flags&linux.SHM_REMAP != 0 {
		return 0, unix.EINVAL
	}
	write, exec := flags&linux.SHM_RDONLY == 0, flags&linux.SHM_EXEC != 0
	s, err := t.IPC().Shm.Attach(t, a[0].Int(), write, exec)
	if err != nil {
		return 0, err
	}
	// The mapping takes a reference of its own.
	defer s.Unhold()
	at, err := t.MemoryManager().MMap(t.MMCaller(), memmap.MMapOpts{Addr: addr, Length: s.Bytes(), Fixed: addr != 0, FixedNoReplace: addr != 0 && flags&linux.SHM_REMAP == 0,
		Perms: hostarch.AccessType{Read: true, Write: write, Execute: exec}, MaxPerms: hostarch.AccessType{Read: true, Write: write, Execute: true},
		Mappable: s.Shared, Identity: s})
	if err == unix.EEXIST {
		err = unix.EINVAL
	}
	return uintptr(at), err
}

func sysShmdt(t *kernel.Task, a kernel.Args) (uintptr, error) {
	addr := a[0].Pointer()
	if addr%hostarch.PageSize != 0 {
		return 0, unix.EINVAL
	}
	m, shm := t.MemoryManager(), t.IPC().Shm
	var parts []hostarch.AddrRange
	id, size := int32(-1), uint64(0)
	m.Mappings(addr, false, func(v *mm.Mapping) bool {
		if v.Dev == shm.Device() && uint64(v.Range.Start-addr) == v.Offset && (id < 0 || v.Inode == uint64(id)) {
			if id < 0 {
				id = int32(v.Inode)
				if st, err := shm.Stat(t, id, false, false); err == nil {
					size = (st.Size + hostarch.PageSize - 1) &^ (hostarch.PageSize - 1)
				}
			}
			parts = append(parts, v.Range)
		}
		return id < 0 || v.Range.End < addr+hostarch.Addr(size)
	})
	if id < 0 {
		return 0, unix.EINVAL
	}
	shm.Detached(t, id)
	for _, ar := range parts {
		if err := m.MUnmap(ar.Start, uint64(ar.Length())); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

func sysShmctl(t *kernel.Task, a kernel.Args) (uintptr, error) {
	shm := t.IPC().Shm
	id, p := a[0].Int(), a[2].Pointer()
	switch cmd := a[1].Int() &^ ipc64; cmd {
	case linux.IPC_INFO:
		var b [72]byte // struct shminfo64: with words that are not used
		limits := linux.ShmParams{ShmMax: linux.SHMMAX, ShmMin: linux.SHMMIN, ShmMni: linux.SHMMNI, ShmSeg: linux.SHMMNI, ShmAll: linux.SHMALL}
		limits.MarshalBytes(b[:])
		_, _, _, top := shm.Usage()
		_, err := t.CopyOut(p, b[:])
		return uintptr(top), err
	case linux.SHM_INFO:
		n, bytes, res, top := shm.Usage()
		info := linux.ShmInfo{UsedIDs: int32(n), ShmTot: bytes / hostarch.PageSize, ShmRss: res / hostarch.PageSize}
		_, err := info.CopyOut(t, p)
		return uintptr(top), err
	case linux.IPC_STAT, linux.SHM_STAT, 15: // SHM_STAT_ANY
		st, err := shm.Stat(t, id, cmd != linux.IPC_STAT, cmd != 15)
		if err != nil {
			return 0, err
		}
		return copyOutStat(t, p, &linux.ShmidDS{ShmPerm: perm(t, &st.Perm), ShmSegsz: st.Size, ShmAtime: linux.TimeT(st.Atime), ShmDtime: linux.TimeT(st.Dtime),
			ShmCtime: linux.TimeT(st.Changed), ShmCpid: st.CPID, ShmLpid: st.LPID, ShmNattach: uint64(st.Attached)}, cmd != linux.IPC_STAT, st.ID)
	case linux.IPC_SET:
		var ds linux.ShmidDS
		if _, err := ds.CopyIn(t, p); err != nil {
			return 0, err
		}
		uid, gid, err := permOwner(t, &ds.ShmPerm)
		if err != nil {
			return 0, err
		}
		return 0, shm.Set(t, id, uid, gid, ds.ShmPerm.Mode)
	case linux.IPC_RMID:
		return 0, shm.Remove(t, id)
	case linux.SHM_LOCK, linux.SHM_UNLOCK:
		return 0, shm.Lock(t, id, cmd == linux.SHM_LOCK)
	}
	return 0, unix.EINVAL
}

func semop(t *kernel.Task, a kernel.Args, timeout hostarch.Addr) (uintptr, error) {
	n := a[2].Uint64()
	if n == 0 {
		return 0, unix.EINVAL
	}
	if n > linux.SEMOPM {
		return 0, unix.E2BIG
	}
	ops := make([]linux.Sembuf, n)
	if _, err := linux.CopySembufSliceIn(t, a[1].Pointer(), ops); err != nil {
		return 0, err
	}
	deadline, err := copyInDeadline(t, timeout)
	if err != nil {
		return 0, err
	}
	return 0, t.IPC().Sem.Op(t, t.ThreadGroup(), a[0].Int(), ops, deadline)
}

func sysSemctl(t *kernel.Task, a kernel.Args) (uintptr, error) {
	sem := t.IPC().Sem
	id, num, p := a[0].Int(), a[1].Int(), a[3].Pointer()
	cmd := a[2].Int() &^ ipc64
	if id < 0 {
		return 0, unix.EINVAL
	}
	switch cmd {
	case linux.IPC_INFO, linux.SEM_INFO:
		sets, sems, top := sem.Usage()
		info := linux.SemInfo{SemMap: linux.SEMMNS, SemMni: linux.SEMMNI, SemMns: linux.SEMMNS, SemMnu: linux.SEMMNU, SemMsl: linux.SEMMSL, SemOpm: linux.SEMOPM,
			SemUme: linux.SEMUME, SemUsz: linux.SEMUSZ, SemVmx: linux.SEMVMX, SemAem: linux.SEMAEM}
		if cmd == linux.SEM_INFO {
			info.SemUsz, info.SemAem = uint32(sets), uint32(sems)
		}
		_, err := info.CopyOut(t, p)
		return uintptr(top), err
	case linux.IPC_RMID:
		return 0, sem.Remove(t, id)
	}
	if v := a[3].Int(); cmd == linux.SETVAL && (v < 0 || v > linux.SEMVMX) {
		return 0, unix.ERANGE
	}
	byIndex := cmd == linux.SEM_STAT || cmd == linux.SEM_STAT_ANY
	s, err := sem.Find(t, id, byIndex, cmd == linux.IPC_STAT || cmd == linux.SEM_STAT)
	if err != nil {
		return 0, err
	}
	switch cmd {
	case linux.IPC_STAT, linux.SEM_STAT, linux.SEM_STAT_ANY:
		st, n, otime := s.Stat()
		return copyOutStat(t, p, &linux.SemidDS{SemPerm: perm(t, &st), SemOTime: linux.TimeT(otime), SemCTime: linux.TimeT(st.Changed), SemNSems: uint64(n)},
			cmd != linux.IPC_STAT, st.ID)
	case linux.IPC_SET:
		var ds linux.SemidDS
		if _, err := ds.CopyIn(t, p); err != nil {
			return 0, err
		}
		uid, gid, err := permOwner(t, &ds.SemPerm)
		if err != nil {
			return 0, err
		}
		return 0, s.Set(t, uid, gid, ds.SemPerm.Mode)
	case linux.GETALL:
		vals, err := s.Values(t)
		if err != nil {
			return 0, err
		}
		_, err = primitive.CopyUint16SliceOut(t, p, vals)
		return 0, err
	case linux.SETALL:
		vals := make([]uint16, s.Len())
		if _, err := primitive.CopyUint16SliceIn(t, p, vals); err != nil {
			return 0, err
		}
		return 0, sem.SetValues(t, s, -1, vals)
	case linux.SETVAL:
		if num < 0 {
			return 0, unix.EINVAL
		}
		return 0, sem.SetValues(t, s, int(num), []uint16{uint16(a[3])})
	case linux.GETVAL, linux.GETPID, linux.GETNCNT, linux.GETZCNT:
		return pidResult(s.Query(t, num, cmd))
	}
	return 0, unix.EINVAL
}

func sysMsgsnd(t *kernel.Task, a kernel.Args) (uintptr, error) {
	n := a[2].Int64()
	typ, err := t.CopyInUint64(a[1].Pointer())
	if err != nil {
		return 0, err
	}
	if n < 0 || n > linux.MSGMAX || a[0].Int() < 0 || int64(typ) < 1 {
		return 0, unix.EINVAL
	}
	text := make([]byte, n)
	if _, err := t.CopyIn(a[1].Pointer()+8, text); err != nil {
		return 0, err
	}
	return 0, t.IPC().Msg.Send(t, a[0].Int(), ipc.Message{Type: int64(typ), Text: text}, a[3].Uint()&linux.IPC_NOWAIT != 0)
}

func sysMsgrcv(t *kernel.Task, a kernel.Args) (uintptr, error) {
	n := a[2].Int64()
	if n < 0 || a[0].Int() < 0 {
		return 0, unix.EINVAL
	}
	m, err := t.IPC().Msg.Receive(t, a[0].Int(), uint64(n), a[3].Int64(), a[4].Uint())
	if err != nil {
		return 0, err
	}
	if err := t.CopyOutUint64(a[1].Pointer(), uint64(m.Type)); err != nil {
		return 0, err
	}
	if _, err := t.CopyOut(a[1].Pointer()+8, m.Text); err != nil {
		return 0, err
	}
	return uintptr(len(m.Text)), nil
}

func sysMsgctl(t *kernel.Task, a kernel.Args) (uintptr, error) {
	msg := t.IPC().Msg
	id, p := a[0].Int(), a[2].Pointer()
	if id < 0 {
		return 0, unix.EINVAL
	}
	switch cmd := a[1].Int() &^ ipc64; cmd {
	case linux.IPC_INFO, linux.MSG_INFO:
		info := linux.MsgInfo{MsgPool: linux.MSGPOOL, MsgMap: linux.MSGMAP, MsgMax: linux.MSGMAX, MsgMnb: linux.MSGMNB, MsgMni: linux.MSGMNI, MsgSsz: linux.MSGSSZ,
			MsgTql: linux.MSGTQL, MsgSeg: linux.MSGSEG}
		queues, msgs, bytes, top := msg.Usage()
		if cmd == linux.MSG_INFO {
			info.MsgPool, info.MsgMap, info.MsgTql = int32(queues), int32(msgs), int32(bytes)
		}
		var b [32]byte // with the structure's padding
		info.MarshalBytes(b[:])
		_, err := t.CopyOut(p, b[:])
		return uintptr(top), err
	case linux.IPC_STAT, linux.MSG_STAT, linux.MSG_STAT_ANY:
		st, err := msg.Stat(t, id, cmd != linux.IPC_STAT, cmd != linux.MSG_STAT_ANY)
		if err != nil {
			return 0, err
		}
		return copyOutStat(t, p, &linux.MsqidDS{MsgPerm: perm(t, &st.Perm), MsgStime: linux.TimeT(st.Stime), MsgRtime: linux.TimeT(st.Rtime),
			MsgCtime: linux.TimeT(st.Changed), MsgCbytes: st.Bytes, MsgQnum: st.Count, MsgQbytes: st.MaxBytes, MsgLspid: st.LSPID, MsgLrpid: st.LRPID},
			cmd != linux.IPC_STAT, st.ID)
	case linux.IPC_SET:
		var ds linux.MsqidDS
		if _, err := ds.CopyIn(t, p); err != nil {
			return 0, err
		}
		uid, gid, err := permOwner(t, &ds.MsgPerm)
		if err != nil {
			return 0, err
		}
		return 0, msg.Set(t, id, uid, gid, ds.MsgPerm.Mode, ds.MsgQbytes)
	case linux.IPC_RMID:
		return 0, msg.Remove(t, id)
	}
	return 0, unix.EINVAL
}
