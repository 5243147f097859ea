package gofer

import (
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"moat/fsgofer/wire"
	"moat/sentry/vfs"
)

// listing is what was read of a directory on an exclusive mount lately: entries with their attributes, so that looking them up next takes no
// request. It is replaced when more is read. Names that changed since are noted, and not answered for. Attributes in it are older than those of an inode in
// use, and so are not taken for one; of an inode that was changed the name counts as changed when it is evicted. A file with several
// names may be changed by way of another directory: its attributes here are not used.
type listing struct {
	dir     *inode
	id      uint64
	batches []*batch
	count   int
	// fromStart: nothing is missing before them; complete: nor behind.
	fromStart bool
	complete  bool
	used      atomic.Bool

	mu sync.RWMutex
	// outdated names are not answered for.
	// +checklocks:mu
	outdated map[string]struct{}
}

// outdate notes that name is another now; false: there are too many of them.
func (l *listing) outdate(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.outdated == nil {
		l.outdated = make(map[string]struct{})
	}
	l.outdated[name] = struct{}{}
	return len(l.outdated) <= maxListed
}

// fresh reports whether nothing has changed.
func (l *listing) fresh() bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return len(l.outdated) == 0
}

// batch is the answer to one request.
type batch struct {
	entries []wire.Dirent
	once    sync.Once
	sorted  []int32 // of entries, by name
}

// maxListed bounds the entries of a listing.
const maxListed = 16 << 10

// find returns the entry's node (which may be empty), nil if it is not known. absent: it is known that there is none.
func (l *listing) find(name string) (n *wire.Node, absent bool) {
	if !l.used.Load() {
		l.used.Store(true)
	}
	l.mu.RLock()
	_, other := l.outdated[name]
	l.mu.RUnlock()
	if other {
		return nil, false
	}
	for _, b := range l.batches {
		b.once.Do(func() {
			b.sorted = make([]int32, len(b.entries))
			for i := range b.sorted {
				b.sorted[i] = int32(i)
			}
			slices.SortFunc(b.sorted, func(x, y int32) int { return strings.Compare(b.entries[x].Name, b.entries[y].Name) })
		})
		n, ok := slices.BinarySearchFunc(b.sorted, name, func(x int32, name string) int { return strings.Compare(b.entries[x].Name, name) })
		if ok {
			return &b.entries[b.sorted[n]].Node, false
		}
	}
	return nil, l.complete
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
	at int64
	// +checklocks:mu
	next int64
	// +checklocks:mu
	eof bool
	// list is the ID of the listing that this file's reading from the start has built so far, up to listed.
	// +checklocks:mu
	list uint64
	// +checklocks:mu
	listed int64
	// changes and seen are the inode's changes and prefetched at the start and at the last fetch.
	// +checklocks:mu
	changes uint64
	// +checklocks:mu
	seen uint64
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
	if len(d.batch) > 0 {
		d.inode.fs.lists.add(d, len(d.batch))
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
	if l := i.list.Load(); l != nil && l.complete && len(l.batches) == 1 && l.fresh() {
		l.used.Store(true)
		d.batch, d.at, d.eof = l.batches[0].entries, 0, true
		return nil
	}
	d.list, d.changes = 0, i.changes.Load()
	return d.fetchLocked(0)
}

// keepLocked adds what was fetched to what is known of the directory.
// +checklocks:d.mu
func (d *dirFile) keepLocked(host int64, attrs bool) {
	i := d.inode
	if i.fs.shared {
		return
	}
	l := &listing{dir: i, id: listings.Add(1), batches: []*batch{{entries: d.batch}}, count: len(d.batch)}
	if host == 0 {
		l.fromStart = true
	} else if old := i.list.Load(); old != nil && old.id == d.list && host == d.listed && old.count+l.count <= maxListed {
		l.batches = append(slices.Clip(old.batches), l.batches...)
		l.count += old.count
		l.fromStart = old.fromStart
	} else if !attrs {
		return
	}
	l.complete = l.fromStart && d.eof
	i.list.Store(l)
	// A change since the directory was opened or rewound has not seen l: take it back.
	if i.changes.Load() != d.changes {
		i.list.CompareAndSwap(l, nil)
		d.list = 0
		return
	}
	d.list, d.listed = l.id, d.next
	i.fs.lists.add(l, len(d.batch))
}

// listings numbers listings.
var listings atomic.Uint64 // +checklocksignore

// +checklocksignore: mu is only tried.
// evict implements evictable: the rest of a batch is fetched again when it is wanted.
func (d *dirFile) evict() bool {
	if !d.mu.TryLock() {
		return false
	}
	defer d.mu.Unlock()
	d.batch, d.at = nil, nowhere
	return true
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
	// Attributes come with the first batch, and with others as long as they turn out to be wanted: each costs the host a look
	// at an inode.
	seen := i.prefetched.Load()
	attrs := !i.fs.shared && (host == 0 || seen != d.seen)
	d.seen = seen
	if _, err := i.fs.call(wire.OpReadDir, &wire.ReadDirReq{Dir: h.h, Off: host, Attrs: attrs}, &rep); err != nil {
		return err
	}
	d.batch, d.at, d.next, d.eof = rep.Entries, host, rep.Next, rep.EOF
	d.keepLocked(host, attrs)
	if !i.fs.readOnly {
		i.atimeChanged()
	}
	return nil
}
