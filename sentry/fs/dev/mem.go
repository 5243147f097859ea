package dev

import (
	cryptorand "crypto/rand"
	"math/rand/v2"
	"sync"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"

	"moat/sentry/fs/tmpfs"
	"moat/sentry/memmap"
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

// null is /dev/null: drivers/char/mem.c. Its position stays 0.
type null struct{ vfs.FileDefaults }

// NoopSeek implements vfs.NoopSeeker (null_lseek).
func (*null) NoopSeek() {}

// NoSpliceRead implements vfs.NoSpliceReader.
func (*null) NoSpliceRead() bool { return true }

func (*null) Read(vfs.Context, *vfs.FileDescription, usermem.IOSequence, int64, vfs.IOFlags) (int64, error) {
	return 0, nil
}

func (*null) Write(_ vfs.Context, _ *vfs.FileDescription, src usermem.IOSequence, off int64, _ vfs.IOFlags) (int64, int64, error) {
	return src.NumBytes(), 0, nil
}

func (*null) Seekable() bool                { return true }
func (*null) CanPoll() bool                 { return false }
func (*null) Fsync(vfs.Context, bool) error { return unix.EINVAL }

// zero is /dev/zero.
type zero struct {
	null
	shm *tmpfs.Shm
}

// NoSpliceRead implements vfs.NoSpliceReader.
func (*zero) NoSpliceRead() bool { return false }

func (*zero) Read(_ vfs.Context, _ *vfs.FileDescription, dst usermem.IOSequence, _ int64, _ vfs.IOFlags) (int64, error) {
	n, err := dst.ZeroOut(dst.NumBytes())
	if n > 0 {
		return n, nil
	}
	return 0, err
}

// ConfigureMMap: private mappings are anonymous memory, a shared one is a nameless file (shmem_zero_setup).
func (z *zero) ConfigureMMap(ctx vfs.Context, _ *vfs.FileDescription, opts *memmap.MMapOpts) error {
	if opts.Private {
		opts.Mappable, opts.Offset = nil, 0
		return nil
	}
	f, err := z.shm.NewFile(ctx, "/dev/zero", int64(opts.Length), 0o600, false)
	if err != nil {
		return err
	}
	defer f.DecRef()
	opts.Offset = 0
	return f.Impl().ConfigureMMap(ctx, f, opts)
}

// full is /dev/full: reads zeros, has no room.
type full struct{ zero }

// ConfigureMMap: it is not mapped since Linux 6.
func (*full) ConfigureMMap(vfs.Context, *vfs.FileDescription, *memmap.MMapOpts) error {
	return unix.ENODEV
}

func (*full) Write(vfs.Context, *vfs.FileDescription, usermem.IOSequence, int64, vfs.IOFlags) (int64, int64, error) {
	return 0, 0, unix.ENOSPC
}

// random is /dev/random and /dev/urandom, which differ no more once the generator is seeded.
type random struct {
	vfs.FileDefaults

	mu  sync.Mutex
	src *rand.ChaCha8 // +checklocks:mu
}

// urandom is one that cannot be waited for.
type urandom struct{ random }

// CanPoll implements vfs.PollChooser.
func (*urandom) CanPoll() bool { return false }

// fill fills b. A generator's output says nothing of earlier output once it was reseeded from itself, which ChaCha8 does
// all along (fast key erasure).
func (r *random) fill(b []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.src == nil {
		var seed [32]byte
		cryptorand.Read(seed[:])
		r.src = rand.NewChaCha8(seed)
	}
	r.src.Read(b)
}

// NoopSeek implements vfs.NoopSeeker: nothing moves the position.
func (*random) NoopSeek()      {}
func (*random) Seekable() bool { return true }

func (r *random) Read(_ vfs.Context, _ *vfs.FileDescription, dst usermem.IOSequence, _ int64, _ vfs.IOFlags) (int64, error) {
	var buf [4096]byte
	var done int64
	for left := dst.NumBytes(); left > 0; {
		b := buf[:min(left, int64(len(buf)))]
		r.fill(b)
		n, err := dst.CopyOut(b)
		done += int64(n)
		left -= int64(n)
		if err != nil {
			if done > 0 {
				break
			}
			return 0, err
		}
		dst = dst.DropFirst(int64(n))
	}
	return done, nil
}

// Write takes entropy, which adds nothing here.
func (r *random) Write(_ vfs.Context, _ *vfs.FileDescription, src usermem.IOSequence, _ int64, _ vfs.IOFlags) (int64, int64, error) {
	return src.NumBytes(), 0, nil
}

const (
	rndGetEntCnt = 0x80045200
	rndAddToEnt  = 0x40045201
	rndAdd       = 0x40085203
)

func (r *random) Ioctl(ctx vfs.Context, _ *vfs.FileDescription, io usermem.IO, req uint32, arg uintptr) (uintptr, error) {
	switch req {
	case rndGetEntCnt:
		_, err := usermem.Single(io, hostarch.Addr(arg), 4).CopyOut([]byte{0, 1, 0, 0}) // 256 bits, as after seeding
		return 0, err
	case rndAddToEnt, rndAdd:
		return 0, unix.EPERM
	}
	return 0, unix.ENOTTY
}
