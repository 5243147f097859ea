package kernel

import (
	"time"

	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/sentry/kernel/auth"
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

// SKELETON: the accessors that syscalls, proc and net rely on. The kernel engineer fills these in (with the real fields) and keeps
// the signatures.

// Task is one guest thread: one goroutine. It implements vfs.Context and usermem.IO (through its MM).
type Task struct{}

// ThreadGroup is a process.
type ThreadGroup struct{}

// Kernel is the root of all state.
type Kernel struct{}

func (t *Task) Kernel() *Kernel           { panic("skeleton") }
func (t *Task) ThreadGroup() *ThreadGroup { panic("skeleton") }

// FDTable is the task's descriptor table (may be shared: CLONE_FILES).
func (t *Task) FDTable() *vfs.FDTable { panic("skeleton") }

// GetFile returns the open file of descriptor fd with a reference (drop with DecRef), or EBADF. O_PATH files give EBADF too: GetFileOrPath gives those.
func (t *Task) GetFile(fd int32) (*vfs.FileDescription, error)       { panic("skeleton") }
func (t *Task) GetFileOrPath(fd int32) (*vfs.FileDescription, error) { panic("skeleton") }

// TID and PID are as seen in the task's own PID namespace.
func (t *Task) TID() int32                     { panic("skeleton") }
func (t *Task) PID() int32                     { panic("skeleton") }
func (t *Task) Credentials() *auth.Credentials { panic("skeleton") }

// Guest memory of the current address space.
func (t *Task) CopyIn(addr hostarch.Addr, dst []byte) (int, error)  { panic("skeleton") }
func (t *Task) CopyOut(addr hostarch.Addr, src []byte) (int, error) { panic("skeleton") }
func (t *Task) ZeroOut(addr hostarch.Addr, n int64) (int64, error)  { panic("skeleton") }
func (t *Task) Blocks(ar hostarch.AddrRange, at hostarch.AccessType, fn func([][]byte) (uint64, error)) (uint64, error) {
	panic("skeleton")
}

// CopyInString copies a NUL-terminated string of at most maxlen-1 bytes: ENAMETOOLONG, EFAULT.
func (t *Task) CopyInString(addr hostarch.Addr, maxlen int) (string, error) { panic("skeleton") }

// CopyInPath is CopyInString with PATH_MAX.
func (t *Task) CopyInPath(addr hostarch.Addr) (string, error) { panic("skeleton") }

// CopyInIovecs copies in an iovec array (readv(2): EINVAL over IOV_MAX or overflow; truncated to MAX_RW_COUNT).
func (t *Task) CopyInIovecs(addr hostarch.Addr, n int) (usermem.IOSequence, error) { panic("skeleton") }

// SingleIO is the sequence for read(2)/write(2) buffers: EFAULT if the range wraps or leaves user space; length limited to MAX_RW_COUNT.
func (t *Task) SingleIO(addr hostarch.Addr, n int64) (usermem.IOSequence, error) { panic("skeleton") }

// Waiting (vfs.Context).
func (t *Task) Block(C <-chan struct{}) error                          { panic("skeleton") }
func (t *Task) BlockUntil(C <-chan struct{}, deadline time.Time) error { panic("skeleton") }
func (t *Task) Now() vfs.Time                                          { panic("skeleton") }
func (t *Task) Root() vfs.Path                                         { panic("skeleton") }
func (t *Task) Cwd() vfs.Path                                          { panic("skeleton") }
func (t *Task) Umask() uint16                                          { panic("skeleton") }
func (t *Task) FileSizeLimit() uint64                                  { panic("skeleton") }
func (t *Task) SendSIGXFSZ()                                           { panic("skeleton") }
