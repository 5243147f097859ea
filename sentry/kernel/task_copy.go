package kernel

import (
	"moat/sentry/usermem"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
)

// MaxRW is MAX_RW_COUNT: reads and writes are cut to it.
const MaxRW = 0x7ffff000

// userTop is TASK_SIZE_MAX: access_ok fails from there on.
const userTop = hostarch.Addr(0x7ffffffff000)

// CopyIn copies from the guest; a short count comes with EFAULT.
func (t *Task) CopyIn(addr hostarch.Addr, dst []byte) (int, error) {
	return t.mm.Load().CopyIn(addr, dst)
}

// CopyOut copies to the guest; a short count comes with EFAULT.
func (t *Task) CopyOut(addr hostarch.Addr, src []byte) (int, error) {
	return t.mm.Load().CopyOut(addr, src)
}

// CopyInBytes, CopyOutBytes and CopyScratchBuffer make t a marshal.CopyContext: abi/linux's structures copy themselves.
func (t *Task) CopyInBytes(addr hostarch.Addr, dst []byte) (int, error) { return t.CopyIn(addr, dst) }

// CopyOutBytes is CopyOut.
func (t *Task) CopyOutBytes(addr hostarch.Addr, src []byte) (int, error) { return t.CopyOut(addr, src) }

// CopyScratchBuffer is for structures that are not laid out as Linux's.
func (t *Task) CopyScratchBuffer(n int) []byte { return make([]byte, n) }

// ZeroOut zeroes guest memory.
func (t *Task) ZeroOut(addr hostarch.Addr, n int64) (int64, error) {
	return t.mm.Load().ZeroOut(addr, n)
}

// Blocks is usermem.IO's.
func (t *Task) Blocks(ar hostarch.AddrRange, at hostarch.AccessType, fn func([][]byte) (uint64, error)) (uint64, error) {
	return t.mm.Load().Blocks(ar, at, fn)
}

// CopyInString copies a NUL-terminated string of at most maxlen-1 bytes: ENAMETOOLONG, EFAULT.
func (t *Task) CopyInString(addr hostarch.Addr, maxlen int) (string, error) {
	return t.mm.Load().CopyInString(addr, maxlen)
}

// CopyInPath is CopyInString with PATH_MAX.
func (t *Task) CopyInPath(addr hostarch.Addr) (string, error) { return t.CopyInString(addr, 4096) }

// CopyInIovecs copies in an iovec array (readv(2): EINVAL over IOV_MAX or overflow; cut to MAX_RW_COUNT).
func (t *Task) CopyInIovecs(addr hostarch.Addr, n int) (usermem.IOSequence, error) {
	return t.mm.Load().CopyInIovecs(addr, n)
}

// SingleIO is the sequence for read(2)/write(2) buffers: EFAULT if the range wraps or leaves user space; length cut to MAX_RW_COUNT.
func (t *Task) SingleIO(addr hostarch.Addr, n int64) (usermem.IOSequence, error) {
	end, ok := addr.AddLength(uint64(n))
	if n < 0 || !ok || end > userTop { // access_ok comes before the check of the count
		return usermem.IOSequence{}, unix.EFAULT
	}
	n = min(n, MaxRW)
	if n == 0 {
		return usermem.IOSequence{IO: t}, nil
	}
	t.oneRange[0] = hostarch.AddrRange{Start: addr, End: addr + hostarch.Addr(n)}
	return usermem.IOSequence{IO: t, Addrs: t.oneRange[:]}, nil
}

// CopyInUint64 reads a 64-bit word; CopyInUint32 a 32-bit one.
func (t *Task) CopyInUint64(addr hostarch.Addr) (uint64, error) {
	b := t.scratch[:8]
	if _, err := t.CopyIn(addr, b); err != nil {
		return 0, err
	}
	return hostarch.ByteOrder.Uint64(b), nil
}

// CopyInUint32 reads a 32-bit word.
func (t *Task) CopyInUint32(addr hostarch.Addr) (uint32, error) {
	b := t.scratch[:4]
	if _, err := t.CopyIn(addr, b); err != nil {
		return 0, err
	}
	return hostarch.ByteOrder.Uint32(b), nil
}

// CopyOutUint64 writes a 64-bit word.
func (t *Task) CopyOutUint64(addr hostarch.Addr, v uint64) error {
	b := t.scratch[:8]
	hostarch.ByteOrder.PutUint64(b, v)
	_, err := t.CopyOut(addr, b)
	return err
}

// CopyOutUint32 writes a 32-bit word.
func (t *Task) CopyOutUint32(addr hostarch.Addr, v uint32) error {
	b := t.scratch[:4]
	hostarch.ByteOrder.PutUint32(b, v)
	_, err := t.CopyOut(addr, b)
	return err
}

// CopyInSigSet reads a signal mask, as all calls with a sigsetsize argument do; SIGKILL and SIGSTOP are dropped.
func (t *Task) CopyInSigSet(addr hostarch.Addr, size uint64) (linux.SignalSet, error) {
	if size != linux.SignalSetSize {
		return 0, unix.EINVAL
	}
	v, err := t.CopyInUint64(addr)
	return linux.SignalSet(v) &^ unblockable, err
}
