package gofer

import (
	"math"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"

	"moat/fsgofer/wire"
	"moat/sentry/memmap"
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

// file is an open regular file.
type file struct {
	vfs.FileDefaults
	inode *inode
	h     *hostFD
}

// Release implements vfs.FileImpl.
func (f *file) Release(vfs.Context, *vfs.FileDescription) {
	f.h.decRef()
	f.inode.opens.Add(-1)
}

// Seekable implements vfs.FileImpl.
func (f *file) Seekable() bool { return true }

// currentSize is the size now.
func (i *inode) currentSize() (int64, error) {
	if i.fs.shared {
		if err := i.refresh(); err != nil {
			return 0, err
		}
	}
	return i.size.Load(), nil
}

// Read implements vfs.FileImpl: straight from the host's page cache into the guest's pages.
func (f *file) Read(_ vfs.Context, _ *vfs.FileDescription, dst usermem.IOSequence, off int64, flags vfs.IOFlags) (int64, error) {
	limit := int64(math.MaxInt64)
	if !f.inode.fs.shared {
		// What lies behind the end need not be faulted in.
		if limit = f.inode.size.Load() - off; limit <= 0 {
			return 0, nil
		}
	}
	x := transfer(unix.SYS_PREADV2, f.h.fd, off, 0)
	defer x.free()
	if err := x.run(dst, hostarch.Write, limit); x.done == 0 {
		return 0, err
	}
	f.inode.atimeChanged()
	return x.done, nil
}

// xfer is one read or write in progress; pooled with its fn, so that a read allocates nothing.
type xfer struct {
	trap, flags uintptr
	fd          int
	off, done   int64
	short       bool // the host transferred less than it was asked to
	fn          func([][]byte) (uint64, error)
}

var xfers = sync.Pool{New: func() any {
	x := &xfer{}
	x.fn = x.step
	return x
}}

func transfer(trap uintptr, fd int, off int64, flags uintptr) *xfer {
	x := xfers.Get().(*xfer)
	x.trap, x.fd, x.off, x.done, x.flags = trap, fd, off, 0, flags
	return x
}

func (x *xfer) free() { xfers.Put(x) }

func (x *xfer) step(bs [][]byte) (uint64, error) {
	n, short, err := rwv(x.trap, x.fd, bs, x.off+x.done, x.flags)
	x.done += int64(n)
	x.short = short
	return n, err
}

// run transfers up to limit bytes, until the host transfers less than it was asked to.
func (x *xfer) run(seq usermem.IOSequence, at hostarch.AccessType, limit int64) error {
	for _, ar := range seq.Addrs {
		for ar.Length() > 0 && limit > 0 {
			part := ar
			if int64(part.Length()) > limit {
				part.End = part.Start + hostarch.Addr(limit)
			}
			n, err := seq.IO.Blocks(part, at, x.fn)
			if err != nil || n == 0 || x.short {
				return err
			}
			ar.Start += hostarch.Addr(n)
			limit -= int64(n)
		}
	}
	return nil
}

// atimeChanged notes a read: the host may have changed atime as for relatime.
func (i *inode) atimeChanged() {
	if i.fs.readOnly {
		return
	}
	i.mu.Lock()
	if a := &i.attr; !i.stale && (a.Atime <= a.Mtime || a.Atime <= a.Ctime || time.Now().UnixNano()-a.Atime > int64(24*time.Hour)) {
		i.staleLocked()
	}
	i.mu.Unlock()
}

// Write implements vfs.FileImpl.
func (f *file) Write(_ vfs.Context, _ *vfs.FileDescription, src usermem.IOSequence, off int64, flags vfs.IOFlags) (int64, int64, error) {
	i := f.inode
	i.wmu.Lock()
	defer i.wmu.Unlock()
	var rwf uintptr
	switch {
	case flags&vfs.IOSync != 0:
		rwf = unix.RWF_SYNC
	case flags&vfs.IODsync != 0:
		rwf = unix.RWF_DSYNC
	}
	atEnd := flags&vfs.IOAppend != 0
	if atEnd && i.fs.shared {
		rwf |= unix.RWF_APPEND // others append too
	} else if atEnd {
		off = i.size.Load()
	}
	x := transfer(unix.SYS_PWRITEV2, f.h.fd, off, rwf)
	defer x.free()
	err := x.run(src, hostarch.Read, math.MaxInt64)
	done := x.done
	if done == 0 {
		return 0, off, err
	}
	end := off + done
	i.mu.Lock()
	i.staleLocked()
	if end > i.size.Load() {
		i.size.Store(end)
	}
	i.mu.Unlock()
	if rwf&unix.RWF_APPEND != 0 {
		if i.resize(nil, f.h.fd) == nil {
			end = i.size.Load()
		}
	}
	return done, end, nil
}

// SeekEnd implements vfs.FileImpl.
func (f *file) SeekEnd(vfs.Context) (int64, error) { return f.inode.currentSize() }

// SeekData implements vfs.FileImpl.
func (f *file) SeekData(_ vfs.Context, off int64, data bool) (int64, error) {
	size, err := f.inode.currentSize()
	if err != nil {
		return 0, err
	}
	if off < 0 || off >= size {
		return 0, unix.ENXIO
	}
	whence := unix.SEEK_DATA
	if !data {
		whence = unix.SEEK_HOLE
	}
	return unix.Seek(f.h.fd, off, whence)
}

// Fsync implements vfs.FileImpl.
func (f *file) Fsync(vfs.Context, bool) error {
	var req wire.SyncReq
	return f.inode.request(wire.OpSync, &req, &wire.Empty{}, &req.Ref)
}

// Allocate implements vfs.FileImpl.
func (f *file) Allocate(_ vfs.Context, mode uint32, off, length int64) error {
	i := f.inode
	i.wmu.Lock()
	defer i.wmu.Unlock()
	return i.resize(unix.Fallocate(f.h.fd, mode, off, length), f.h.fd)
}

// ConfigureMMap implements vfs.FileImpl.
func (f *file) ConfigureMMap(_ vfs.Context, fd *vfs.FileDescription, opts *memmap.MMapOpts) error {
	opts.Mappable = f.inode
	return nil
}
