package syscalls

import (
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/sentry/kernel"
	"moat/sentry/kernel/auth"
	"moat/sentry/kernel/ipc"
	"moat/sentry/memmap"
	"moat/sentry/mm"
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

// putPerm encodes struct ipc64_perm (48 bytes).
func putPerm(b []byte, p *ipc.Perm, ns *auth.UserNamespace) {
	le := hostarch.ByteOrder
	le.PutUint32(b, uint32(p.Key))
	le.PutUint32(b[4:], ns.UIDOrOverflow(p.UID))
	le.PutUint32(b[8:], ns.GIDOrOverflow(p.GID))
	le.PutUint32(b[12:], ns.UIDOrOverflow(p.CUID))
	le.PutUint32(b[16:], ns.GIDOrOverflow(p.CGID))
	le.PutUint32(b[20:], uint32(p.Mode))
	le.PutUint16(b[24:], p.Seq)
}

// getPerm decodes what IPC_SET takes from struct ipc64_perm.
func getPerm(t *kernel.Task, b []byte) (auth.KUID, auth.KGID, uint16, error) {
	le := hostarch.ByteOrder
	ns := t.UserNamespace()
	uid, gid := ns.MapToKUID(le.Uint32(b[4:])), ns.MapToKGID(le.Uint32(b[8:]))
	if uint32(uid) == auth.NoID || uint32(gid) == auth.NoID {
		return 0, 0, 0, unix.EINVAL
	}
	return uid, gid, uint16(le.Uint32(b[20:])), nil
}

const permSize = 48

func put64(b []byte, off int, vals ...uint64) {
	for i, v := range vals {
		hostarch.ByteOrder.PutUint64(b[off+8*i:], v)
	}
}

func put32(b []byte, vals ...uint32) {
	for i, v := range vals {
		hostarch.ByteOrder.PutUint32(b[4*i:], v)
	}
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
	le := hostarch.ByteOrder
	switch cmd := a[1].Int() &^ ipc64; cmd {
	case linux.IPC_INFO:
		var b [72]byte
		put64(b[:], 0, linux.SHMMAX, linux.SHMMIN, linux.SHMMNI, linux.SHMMNI, linux.SHMALL)
		_, _, _, top := shm.Usage()
		_, err := t.CopyOut(p, b[:])
		return uintptr(top), err
	case linux.SHM_INFO:
		var b [48]byte
		n, bytes, res, top := shm.Usage()
		le.PutUint32(b[:], uint32(n))
		put64(b[:], 8, bytes/hostarch.PageSize, res/hostarch.PageSize)
		_, err := t.CopyOut(p, b[:])
		return uintptr(top), err
	case linux.IPC_STAT, linux.SHM_STAT, 15: // SHM_STAT_ANY
		st, err := shm.Stat(t, id, cmd != linux.IPC_STAT, cmd != 15)
		if err != nil {
			return 0, err
		}
		var b [112]byte
		putPerm(b[:], &st.Perm, t.UserNamespace())
		put64(b[:], permSize, st.Size, uint64(st.Atime), uint64(st.Dtime), uint64(st.Changed))
		put32(b[80:], uint32(st.CPID), uint32(st.LPID))
		put64(b[:], 88, uint64(st.Attached))
		if _, err := t.CopyOut(p, b[:]); err != nil || cmd == linux.IPC_STAT {
			return 0, err
		}
		return uintptr(st.ID), nil
	case linux.IPC_SET:
		var b [112]byte
		if _, err := t.CopyIn(p, b[:]); err != nil {
			return 0, err
		}
		uid, gid, mode, err := getPerm(t, b[:])
		if err != nil {
			return 0, err
		}
		return 0, shm.Set(t, id, uid, gid, mode)
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
	le := hostarch.ByteOrder
	b := make([]byte, 6*n)
	if _, err := t.CopyIn(a[1].Pointer(), b); err != nil {
		return 0, err
	}
	ops := make([]linux.Sembuf, n)
	for i := range ops {
		ops[i] = linux.Sembuf{SemNum: le.Uint16(b[6*i:]), SemOp: int16(le.Uint16(b[6*i+2:])), SemFlg: int16(le.Uint16(b[6*i+4:]))}
	}
	var deadline time.Time
	if timeout != 0 {
		var ts [16]byte
		if _, err := t.CopyIn(timeout, ts[:]); err != nil {
			return 0, err
		}
		sec, nsec := int64(le.Uint64(ts[:])), int64(le.Uint64(ts[8:]))
		if sec < 0 || nsec < 0 || nsec >= 1e9 {
			return 0, unix.EINVAL
		}
		if sec < 9e9 {
			deadline = time.Now().Add(time.Duration(sec*1e9 + nsec))
		}
	}
	return 0, t.IPC().Sem.Op(t, t.ThreadGroup(), a[0].Int(), ops, deadline)
}

func sysSemctl(t *kernel.Task, a kernel.Args) (uintptr, error) {
	sem := t.IPC().Sem
	id, num, p := a[0].Int(), a[1].Int(), a[3].Pointer()
	le := hostarch.ByteOrder
	cmd := a[2].Int() &^ ipc64
	switch cmd {
	case linux.IPC_INFO, linux.SEM_INFO:
		sets, sems, top := sem.Usage()
		var b [40]byte
		put32(b[:], linux.SEMMNS, linux.SEMMNI, linux.SEMMNS, linux.SEMMNU, linux.SEMMSL, linux.SEMOPM, linux.SEMUME, linux.SEMUSZ, linux.SEMVMX, linux.SEMAEM)
		if cmd == linux.SEM_INFO {
			le.PutUint32(b[28:], uint32(sets))
			le.PutUint32(b[36:], uint32(sems))
		}
		_, err := t.CopyOut(p, b[:])
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
		perm, n, otime := s.Stat()
		var b [104]byte
		putPerm(b[:], &perm, t.UserNamespace())
		put64(b[:], permSize, uint64(otime), 0, uint64(perm.Changed), 0, uint64(n))
		if _, err := t.CopyOut(p, b[:]); err != nil || cmd == linux.IPC_STAT {
			return 0, err
		}
		return uintptr(perm.ID), nil
	case linux.IPC_SET:
		var b [104]byte
		if _, err := t.CopyIn(p, b[:]); err != nil {
			return 0, err
		}
		uid, gid, mode, err := getPerm(t, b[:])
		if err != nil {
			return 0, err
		}
		return 0, s.Set(t, uid, gid, mode)
	case linux.GETALL:
		vals, err := s.Values(t)
		if err != nil {
			return 0, err
		}
		b := make([]byte, 2*len(vals))
		for i, v := range vals {
			le.PutUint16(b[2*i:], v)
		}
		_, err = t.CopyOut(p, b)
		return 0, err
	case linux.SETALL:
		b := make([]byte, 2*s.Len())
		if _, err := t.CopyIn(p, b); err != nil {
			return 0, err
		}
		vals := make([]uint16, s.Len())
		for i := range vals {
			vals[i] = le.Uint16(b[2*i:])
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
	switch cmd := a[1].Int() &^ ipc64; cmd {
	case linux.IPC_INFO, linux.MSG_INFO:
		var b [32]byte
		put32(b[:], linux.MSGPOOL, linux.MSGMAP, linux.MSGMAX, linux.MSGMNB, linux.MSGMNI, linux.MSGSSZ, linux.MSGTQL, linux.MSGSEG)
		queues, msgs, bytes, top := msg.Usage()
		if cmd == linux.MSG_INFO {
			put32(b[:], uint32(queues), uint32(msgs))
			hostarch.ByteOrder.PutUint32(b[24:], uint32(bytes))
		}
		_, err := t.CopyOut(p, b[:])
		return uintptr(top), err
	case linux.IPC_STAT, linux.MSG_STAT, linux.MSG_STAT_ANY:
		st, err := msg.Stat(t, id, cmd != linux.IPC_STAT, cmd != linux.MSG_STAT_ANY)
		if err != nil {
			return 0, err
		}
		var b [120]byte
		putPerm(b[:], &st.Perm, t.UserNamespace())
		put64(b[:], permSize, uint64(st.Stime), uint64(st.Rtime), uint64(st.Changed), st.Bytes, st.Count, st.MaxBytes)
		put32(b[96:], uint32(st.LSPID), uint32(st.LRPID))
		if _, err := t.CopyOut(p, b[:]); err != nil || cmd == linux.IPC_STAT {
			return 0, err
		}
		return uintptr(st.ID), nil
	case linux.IPC_SET:
		var b [120]byte
		if _, err := t.CopyIn(p, b[:]); err != nil {
			return 0, err
		}
		uid, gid, mode, err := getPerm(t, b[:])
		if err != nil {
			return 0, err
		}
		return 0, msg.Set(t, id, uid, gid, mode, hostarch.ByteOrder.Uint64(b[88:]))
	case linux.IPC_RMID:
		return 0, msg.Remove(t, id)
	}
	return 0, unix.EINVAL
}
