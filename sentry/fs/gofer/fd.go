package gofer

import (
	"io"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"moat/fsgofer/wire"
	"moat/sentry/memmap"
	"moat/sentry/refs"
)

// hostFD is a descriptor that the gofer donated. It implements memmap.File. refs counts open files and, for the guest's
// mappings, pages; unused it stays cached until the clock finds it.
type hostFD struct {
	fd    int
	inode *inode
	slot  *atomic.Pointer[hostFD]
	refs  atomic.Int64
	used  atomic.Bool
}

// closedRefs is refs of a closed hostFD: none can be taken.
const closedRefs = -1 << 40

func (h *hostFD) tryIncRef() bool {
	ok := refs.TryInc(&h.refs, 0)
	if ok && !h.used.Load() {
		h.used.Store(true)
	}
	return ok
}

func (h *hostFD) decRef() {
	if h.refs.Add(-1) == 0 && h.slot.Load() != h {
		h.close() // nobody would find it again
	}
}

// close closes the descriptor if it is unused.
func (h *hostFD) close() bool {
	if !h.refs.CompareAndSwap(0, closedRefs) {
		return h.refs.Load() < 0
	}
	h.slot.CompareAndSwap(h, nil)
	unix.Close(h.fd)
	return true
}

// evict implements evictable.
func (h *hostFD) evict() bool { return !h.used.Swap(false) && h.close() }

// FD implements memmap.File.
func (h *hostFD) FD() int { return h.fd }

// IncRef implements memmap.File.
func (h *hostFD) IncRef(fr memmap.FileRange) { h.refs.Add(int64(fr.Length() >> 12)) }

// DecRef implements memmap.File.
func (h *hostFD) DecRef(fr memmap.FileRange) {
	if h.refs.Add(-int64(fr.Length()>>12)) == 0 && h.slot.Load() != h {
		h.close()
	}
}

// Slices implements memmap.File: host files are not mapped into the sentry.
func (h *hostFD) Slices(memmap.FileRange, func([]byte) error) error { return unix.ENODEV }

// ReadAt implements memmap.File.
func (h *hostFD) ReadAt(p []byte, off int64) (int, error) {
	return h.whole(unix.SYS_PREADV2, p, off, io.EOF)
}

// WriteAt implements memmap.File.
func (h *hostFD) WriteAt(p []byte, off int64) (int, error) {
	return h.whole(unix.SYS_PWRITEV2, p, off, unix.EIO)
}

// whole transfers all of p; none is the error if there is no more.
func (h *hostFD) whole(trap uintptr, p []byte, off int64, none error) (done int, err error) {
	for done < len(p) && err == nil {
		var n uint64
		if n, _, err = rwv(trap, h.fd, [][]byte{p[done:]}, off+int64(done), 0); err == nil && n == 0 {
			err = none
		}
		done += int(n)
	}
	return done, err
}

// getFD returns a descriptor of the file with a reference; without write, one for reading and writing will do, too.
// +checklocksignore: wmu is only tried.
func (i *inode) getFD(write bool) (*hostFD, error) {
	if h := i.rw.Load(); h != nil && h.tryIncRef() {
		return h, nil
	}
	if h := i.ro.Load(); !write && h != nil && h.tryIncRef() {
		return h, nil
	}
	// The size that comes is only good if no write of ours is under way.
	locked := i.wmu.TryLock()
	if locked {
		defer i.wmu.Unlock()
	}
	if !write {
		if fd := i.takeOpened(); fd >= 0 {
			return i.install(fd, &i.ro, 1), nil
		}
	}
	fd := -1
	err := i.withRef(func(r wire.Ref) (err error) {
		fd, err = i.open(r, write, locked)
		if err == unix.ESTALE && !i.fs.shared && r.Path != "" {
			// Somebody replaced the file, though the mount is the sandbox's alone (the host's own root, say). What is there now
			// is a better answer than ESTALE.
			r.Ino = 0
			fd, err = i.open(r, write, locked)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if write {
		return i.install(fd, &i.rw, 1), nil
	}
	return i.install(fd, &i.ro, 1), nil
}

// open has the gofer open i, and if it is one of a row, some of those that come next. size: that of the answer is good.
// +checklocksignore: withRef holds loc.
func (i *inode) open(r wire.Ref, write, size bool) (int, error) {
	req := wire.OpenReq{Ref: r, Write: write}
	if r.Path != "" && !write && !i.fs.shared {
		req.More = i.parent.expectOpens(i.name)
	}
	var rep wire.OpenRep
	var fds [wire.MaxFDs]int
	n, err := i.fs.callFDs(wire.OpOpen, &req, &rep, fds[:])
	if err == nil && n == 0 {
		err = unix.EIO
	}
	if err != nil {
		return -1, err
	}
	i.take(&rep.Attr, size || i.fs.shared)
	if n > 1 || len(req.More) > 0 {
		i.parent.keepOpened(req.More, rep.More, fds[1:n])
	}
	return fds[0], nil
}

// install makes fd, with so many references, the cached descriptor of one of the inode's slots. If there is one by now, fd goes when its user does.
func (i *inode) install(fd int, slot *atomic.Pointer[hostFD], refs int64) *hostFD {
	h := &hostFD{fd: fd, inode: i, slot: slot}
	h.refs.Store(refs)
	h.used.Store(true)
	if h.slot.CompareAndSwap(nil, h) {
		i.fs.fds.add(h, 1)
	} else if refs == 0 {
		h.close()
	}
	return h
}

// dropFDs closes what is cached. No file is open.
func (i *inode) dropFDs() {
	for _, slot := range [...]*atomic.Pointer[hostFD]{&i.ro, &i.rw, &i.look} {
		if h := slot.Load(); h != nil && !h.close() {
			// Pages are still mapped: the last reference closes it.
			slot.CompareAndSwap(h, nil)
			if h.refs.Load() == 0 {
				h.close()
			}
		}
	}
}
