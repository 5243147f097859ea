package gofer

import (
	"math"
	"sync"

	"golang.org/x/sys/unix"

	"moat/fsgofer/wire"
	"moat/sentry/vfs"
)

// dirFile is an open directory. Its offsets are 0, 1 and 2 for the start and behind "." and "..", then the host's own shifted
// out of their way.
type dirFile struct {
	vfs.FileDefaults
	inode *inode

	mu sync.Mutex
	// cur are entries that were fetched, of which those from pos on are still to be read; they begin at the host's offset at, and next is behind
	// them. rest are the batches of a cached listing that follow.
	// +checklocks:mu
	cur wire.Entries
	// +checklocks:mu
	pos int
	// +checklocks:mu
	at int64
	// +checklocks:mu
	next int64
	// +checklocks:mu
	rest []*batch
	// eof: nothing follows on cur and rest.
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
	off, err := d.readLocked(off, start, emit)
	if d.pos < len(d.cur) {
		d.inode.fs.lists.add(d, len(d.cur))
	}
	return off, err
}

// readLocked emits the host's entries behind off. start: the directory is read from its beginning.
// +checklocks:d.mu
func (d *dirFile) readLocked(off int64, start bool, emit func(vfs.Dirent) error) (int64, error) {
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
		for d.pos < len(d.cur) {
			e, next := d.cur.At(d.pos)
			if emit(vfs.Dirent{Name: e.Name, Type: e.Type, Ino: e.Ino ^ salt, Off: shift(e.Off)}) != nil {
				return off, nil
			}
			off, host = shift(e.Off), e.Off
			d.pos, d.at = next, e.Off
		}
		switch {
		case len(d.rest) > 0:
			host = d.next
			d.takeLocked(d.rest[0], host)
			d.rest = d.rest[1:]
		case d.eof:
			return off, nil
		case d.next == host:
			// The batch is used up and the next begins here: at = nowhere has it fetched.
			d.at = nowhere
			if err := d.fetchLocked(host); err != nil {
				return off, err
			}
			if len(d.cur) == 0 && !d.eof && d.next == host {
				return off, unix.EIO // a gofer that makes no progress is broken
			}
		default:
			host = d.next
		}
	}
}

// takeLocked goes on with b, which begins at the host's offset.
// +checklocks:d.mu
func (d *dirFile) takeLocked(b *batch, host int64) {
	d.cur, d.pos, d.at, d.next = b.entries, 0, host, b.next
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
	d.inode.Version()
	if l := d.inode.listing(); l != nil && l.complete && l.outdated.none() {
		l.wasRead()
		d.takeLocked(l.batches[0], 0)
		d.rest, d.eof = l.batches[1:], true
		return nil
	}
	return d.fetchLocked(0)
}

// evict implements evictable: the rest of a batch is fetched again when it is wanted.
// +checklocksignore: mu is only tried.
func (d *dirFile) evict() bool {
	if !d.mu.TryLock() {
		return false
	}
	defer d.mu.Unlock()
	d.cur, d.pos, d.at, d.rest = "", 0, nowhere, nil
	return true
}

// fetchLocked asks for the batch at the host's offset.
// +checklocks:d.mu
func (d *dirFile) fetchLocked(host int64) error {
	d.cur, d.pos, d.at, d.rest, d.eof = "", 0, nowhere, nil, false
	b, eof, err := d.inode.readBatch(host)
	if err != nil {
		return err
	}
	d.takeLocked(b, host)
	d.eof = eof
	return nil
}
