package gofer

import (
	"math"
	"sort"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"moat/fsgofer/wire"
	"moat/sentry/vfs"
)

// listing is all of a short directory. It is dropped when the directory changes.
type listing struct {
	dir     *inode
	entries []wire.Dirent
	sorted  []string
	used    atomic.Bool
}

// maxListed bounds the entries of a cached listing.
const maxListed = 512

func (l *listing) has(name string) bool {
	n := sort.SearchStrings(l.sorted, name)
	return n < len(l.sorted) && l.sorted[n] == name
}

// evict implements evictable.
func (l *listing) evict() bool {
	if l.dir.list.Load() != l {
		return true
	}
	return !l.used.Swap(false) && l.dir.list.CompareAndSwap(l, nil)
}

// dirFile is an open directory. Its offsets are 0, 1 and 2 for the start and behind "." and "..", then the host's own shifted
// out of their way.
type dirFile struct {
	vfs.FileDefaults
	inode *inode

	mu sync.Mutex
	// batch are entries that were fetched; the first is at offset at, the offset behind the last is next.
	// +checklocks:mu
	batch []wire.Dirent
	// +checklocks:mu
	at, next int64
	// +checklocks:mu
	eof bool
}

const dots = 3

// shift turns the host's offset into the guest's.
func shift(off int64) int64 {
	if off > math.MaxInt64-dots {
		return math.MaxInt64
	}
	return off + dots
}

// Seekable implements vfs.FileImpl.
func (d *dirFile) Seekable() bool { return true }

// SeekEnd implements vfs.FileImpl.
func (d *dirFile) SeekEnd(vfs.Context) (int64, error) { return math.MaxInt64, nil }

// Fsync implements vfs.FileImpl.
func (d *dirFile) Fsync(vfs.Context, bool) error {
	var req wire.SyncReq
	return d.inode.request(wire.OpSync, &req, &wire.Empty{}, &req.Ref)
}

// ReadDir implements vfs.FileImpl.
func (d *dirFile) ReadDir(_ vfs.Context, _ *vfs.FileDescription, off int64, emit func(vfs.Dirent) error) (int64, error) {
	start := off < dots
	if off == 0 {
		if emit(vfs.Dirent{Name: ".", Type: unix.DT_DIR, Ino: d.inode.ino, Off: 1}) != nil {
			return off, nil
		}
		off = 1
	}
	if off == 1 {
		if emit(vfs.Dirent{Name: "..", Type: unix.DT_DIR, Ino: d.parentIno(), Off: 2}) != nil {
			return off, nil
		}
		off = 2
	}
	if off == math.MaxInt64 {
		return off, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	host := max(off-dots, 0)
	if start {
		// rewinddir(3) sees the directory as it is now.
		if err := d.startLocked(); err != nil {
			return off, err
		}
	}
	salt := d.inode.ino ^ d.inode.key.ino
	for {
		if d.at != host {
			if err := d.fetchLocked(host); err != nil {
				return off, err
			}
		}
		for len(d.batch) > 0 {
			e := &d.batch[0]
			if emit(vfs.Dirent{Name: e.Name, Type: e.Type, Ino: e.Ino ^ salt, Off: shift(e.Off)}) != nil {
				return off, nil
			}
			off, host = shift(e.Off), e.Off
			d.batch, d.at = d.batch[1:], e.Off
		}
		if d.eof {
			return off, nil
		}
		if d.next == host {
			// The batch is used up and the next begins here: at = nowhere has it fetched.
			d.at = nowhere
			if err := d.fetchLocked(host); err != nil {
				return off, err
			}
			if len(d.batch) == 0 && !d.eof && d.next == host {
				return off, unix.EIO // a gofer that makes no progress is broken
			}
			continue
		}
		host = d.next
	}
}

// nowhere is an offset that no batch has.
const nowhere = -1

func (d *dirFile) parentIno() uint64 {
	d.inode.loc.RLock()
	defer d.inode.loc.RUnlock()
	if p := d.inode.parent; p != nil {
		return p.ino
	}
	return d.inode.ino
}

// startLocked gets the first batch, from the cache if the whole listing is there.
// +checklocks:d.mu
func (d *dirFile) startLocked() error {
	i := d.inode
	if l := i.list.Load(); l != nil {
		l.used.Store(true)
		d.batch, d.at, d.eof = l.entries, 0, true
		return nil
	}
	changes := i.changes.Load()
	if err := d.fetchLocked(0); err != nil {
		return err
	}
	if d.eof && !i.fs.shared && len(d.batch) <= maxListed {
		l := &listing{dir: i, entries: d.batch}
		for j := range d.batch {
			l.sorted = append(l.sorted, d.batch[j].Name)
		}
		sort.Strings(l.sorted)
		i.list.Store(l)
		// A change since the request was made has not seen l: take it back.
		if i.changes.Load() != changes {
			i.list.CompareAndSwap(l, nil)
		} else {
			i.fs.lists.add(l)
		}
	}
	return nil
}

// fetchLocked asks for the batch at the host's offset.
// +checklocks:d.mu
func (d *dirFile) fetchLocked(host int64) error {
	i := d.inode
	h, err := i.getHandle()
	if err != nil {
		return err
	}
	defer h.decRef()
	var rep wire.ReadDirRep
	d.batch, d.at, d.eof = nil, nowhere, false
	if _, err := i.fs.call(wire.OpReadDir, &wire.ReadDirReq{Dir: h.h, Off: host}, &rep); err != nil {
		return err
	}
	d.batch, d.at, d.next, d.eof = rep.Entries, host, rep.Next, rep.EOF
	if !i.fs.readOnly {
		i.atimeChanged()
	}
	return nil
}
