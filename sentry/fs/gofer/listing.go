package gofer

import (
	"hash/maphash"
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"moat/fsgofer/wire"
	"moat/sentry/vfs"
)

// listing is what was read of a directory lately, on a shared mount only for guessing what is looked up next (lookahead.go). On an exclusive mount it is
// from the directory's beginning on, and looking the entries up takes no request. It is replaced when more is read. Names that changed since are noted, and
// not answered for. Attributes in it are older than those of
// an inode in use, and so are not taken for one; of an inode that was changed the name counts as changed when it is evicted. A file with
// several names may be changed by way of another directory: its attributes here are not used, unless nothing changes.
type listing struct {
	dir     *inode
	batches []*batch
	size    int  // of the batches, in bytes
	attrs   bool // they came with all attributes
	// next is the host's offset behind the batches; complete: there is nothing.
	next     int64
	complete bool
	used     atomic.Bool
	outdated *names

	// ahead: it came with that of a directory above; read: it was wanted.
	ahead bool
	read  atomic.Bool
}

// names is a set of names, with a bound.
type names struct {
	mu sync.Mutex
	// +checklocks:mu
	m map[string]struct{}
	n atomic.Int32
}

// add adds name; false: there are too many.
func (s *names) add(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		s.m = make(map[string]struct{})
	}
	s.m[name] = struct{}{}
	s.n.Store(int32(len(s.m)))
	return len(s.m) <= maxOutdated
}

func (s *names) has(name string) bool {
	if s.none() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.m[name]
	return ok
}

func (s *names) none() bool { return s.n.Load() == 0 }

// Bounds of one listing.
const (
	maxOutdated = 16 << 10
	maxListing  = 4 << 20
)

// batch is one list of entries that the gofer sent. It does not change, but for what find needs and for subs.
type batch struct {
	entries wire.Entries
	next    int64
	once    sync.Once
	table   []uint32 // offsets of entries + 1, by hash of the name; 0: empty
	// subs are the listings of directories below that came along, by the offset of their entries; they are taken once, and good as long as
	// fs.epoch is changes.
	subs    []sub
	changes uint64
	attrs   bool        // all entries came with theirs
	wanted  atomic.Bool // attributes of a file were

	opens   atomic.Int32 // of files in it that took a request
	ordered sync.Once
	order   [orders][]uint32 // offsets of the entries
}

type sub struct {
	at int
	b  atomic.Pointer[batch]
}

var seed = maphash.MakeSeed()

func (b *batch) index() {
	n := 0
	for at := 0; at < len(b.entries); n++ {
		_, at = b.entries.At(at)
	}
	size := 4
	for size < 2*n {
		size *= 2
	}
	b.table = make([]uint32, size)
	for at := 0; at < len(b.entries); {
		e, next := b.entries.At(at)
		h := int(maphash.String(seed, e.Name)) & (size - 1)
		for b.table[h] != 0 {
			h = (h + 1) & (size - 1)
		}
		b.table[h] = uint32(at + 1)
		at = next
	}
}

// find returns the entry of that name and its offset; -1: there is none.
func (b *batch) find(name string) (wire.Entry, int) {
	b.once.Do(b.index)
	mask := len(b.table) - 1
	for h := int(maphash.String(seed, name)) & mask; b.table[h] != 0; h = (h + 1) & mask {
		at := int(b.table[h] - 1)
		if e, _ := b.entries.At(at); e.Name == name {
			return e, at
		}
	}
	return wire.Entry{}, -1
}

// sub returns the place of the listing that came along for the directory whose entry is at the offset, or nil.
func (b *batch) sub(at int) *atomic.Pointer[batch] {
	i := sort.Search(len(b.subs), func(i int) bool { return b.subs[i].at >= at })
	if i == len(b.subs) || b.subs[i].at != at {
		return nil
	}
	return &b.subs[i].b
}

func (b *batch) hasSub(at int) bool {
	s := b.sub(at)
	return s != nil && s.Load() != nil
}

// takeSub returns what sub has, once.
func (b *batch) takeSub(at int) *batch {
	if s := b.sub(at); s != nil {
		return s.Swap(nil)
	}
	return nil
}

// find returns the batch and the offset of the entry of that name; a nil batch: it is not known. absent: it is known that there is none.
func (l *listing) find(name string) (b *batch, e wire.Entry, at int, absent bool) {
	if !l.used.Load() {
		l.used.Store(true)
	}
	if l.outdated.has(name) {
		return nil, e, 0, false
	}
	for _, b := range l.batches {
		if e, at := b.find(name); at >= 0 {
			return b, e, at, false
		}
	}
	return nil, e, 0, l.complete
}

// evict implements evictable.
func (l *listing) evict() bool {
	if l.dir.list.Load() != l {
		return true
	}
	return !l.used.Swap(false) && l.dir.list.CompareAndSwap(l, nil)
}

// wasRead notes that the listing was wanted.
func (l *listing) wasRead() {
	l.used.Store(true)
	if l.ahead && !l.read.Swap(true) {
		if fs := l.dir.fs; fs.below.Load() < maxBelow {
			fs.below.Add(32)
		}
	}
}

// How many entries of directories below come with a listing: more as they are read, fewer as they are not.
const (
	minBelow = 16
	maxBelow = 2048
)

// maxStatting is how many listings come with attributes that nobody wants.
const maxStatting = 8

// node returns the attributes of an entry, if they may be used.
func (i *inode) node(b *batch, e *wire.Entry) (wire.Node, bool) {
	if !e.HasNode() {
		i.fs.statting.Store(maxStatting)
		return wire.Node{}, false
	}
	n := e.Node()
	if dir := n.Attr.Mode&unix.S_IFMT == unix.S_IFDIR; !dir && n.Attr.Nlink != 1 && !i.fs.readOnly || n.Attr.Ino == 0 {
		return n, false
	} else if !dir && !b.wanted.Swap(true) {
		i.fs.statting.Store(min(maxStatting, i.fs.statting.Load()+2))
	}
	return n, true
}

// known reports whether name is in the listing with its attributes, or known to be absent.
func (i *inode) known(name string) (node, absent bool) {
	l := i.listing()
	if l == nil {
		return false, false
	}
	b, e, _, absent := l.find(name)
	if b == nil {
		return false, absent
	}
	_, ok := i.node(b, &e)
	return ok, false
}

// fromList answers a lookup from the listing; ok is false if it cannot.
func (i *inode) fromList(name string) (c vfs.Inode, err error, ok bool) {
	l := i.listing()
	if l == nil {
		return nil, nil, false
	}
	b, e, _, absent := l.find(name)
	if absent {
		return nil, unix.ENOENT, true
	}
	if b == nil {
		return nil, nil, false
	}
	n, ok := i.node(b, &e)
	if !ok {
		return nil, nil, false
	}
	f := i.fs.inodeOf(&n, i, name)
	if f.isDir() {
		f.listed.Store(true)
	}
	return f, nil, true
}

// listing returns the listing of i, be it one that came along with that of another directory, or nil.
func (i *inode) listing() *listing {
	if i.fs.shared {
		return nil // what there is is from before
	}
	l := i.list.Load()
	if l != nil || !i.listed.Load() {
		return l
	}
	changes := i.changes.Load()
	i.loc.RLock()
	defer i.loc.RUnlock()
	p := i.parent
	if p == nil {
		return nil
	}
	var s *batch
	if a := p.siblings.Load(); a != nil {
		s = a.take(i.name)
	}
	if l := p.list.Load(); s == nil && l != nil {
		if b, _, at, _ := l.find(i.name); b != nil {
			s = b.takeSub(at)
		}
	}
	if s == nil || s.changes != i.fs.epoch() {
		return nil
	}
	l = &listing{dir: i, batches: []*batch{s}, attrs: s.attrs, complete: true, outdated: &names{}, ahead: true}
	i.setList(l, changes, len(s.entries))
	return l
}

// missed counts a lookup that takes a request. When there are many in a directory, for its size, it is listed; true: what is known is more by now.
func (i *inode) missed() bool {
	if n := i.misses.Add(1) - int32(min(i.size.Load()>>13, 1<<10)); i.fs.shared || n < 0 || n%8 != 3 {
		return false
	}
	l := i.list.Load()
	if l == nil || l.complete && !l.attrs {
		l = &listing{}
	}
	if l.complete || l.size > maxListing {
		return false
	}
	_, _, err := i.fetch1(l.next, wire.AttrsAll, 0)
	return err == nil
}

// readBatch gets the entries from the host's offset on; eof: there are no more.
func (i *inode) readBatch(host int64) (b *batch, eof bool, err error) {
	if i.fs.shared {
		return i.fetch1(host, wire.AttrsNone, 0)
	}
	attrs, below := wire.AttrsDirs, int32(0)
	if s := i.fs.statting.Load(); s > 0 {
		i.fs.statting.Store(s - 1)
		attrs = wire.AttrsAll
	}
	if host == 0 && i.listed.Load() {
		// A walk of a tree, it seems.
		below = i.fs.below.Load()
		i.fs.below.Store(max(below/2, minBelow))
	}
	return i.fetch1(host, attrs, below)
}

// dirsBehindLocked are the directories that come behind i in its parent's listing.
// +checklocksignore: withRef holds loc.
func (i *inode) dirsBehindLocked() []string { return i.parent.dirsBehind(i.name) }

// fetch1 is readBatch with such attributes, and so many entries of directories below at most.
func (i *inode) fetch1(host int64, attrs uint8, below int32) (b *batch, eof bool, err error) {
	changes, all := i.changes.Load(), i.fs.epoch()
	req := wire.ReadDirReq{Off: host, Attrs: attrs, Below: uint32(below)}
	var rep wire.ReadDirRep
	err = i.withRef(func(r wire.Ref) error {
		req.Dir = r
		if below > 0 && r.Path != "" {
			req.Siblings = i.dirsBehindLocked()
		}
		return i.fs.call(wire.OpReadDir, &req, &rep)
	})
	if err != nil {
		return nil, false, err
	}
	i.foundHandle(rep.Dir)
	if !i.fs.readOnly {
		i.atimeChanged()
	}
	batches := batchesOf(&rep, attrs == wire.AttrsAll, all)
	b = batches[0]
	if len(rep.Siblings) > 0 && all == i.fs.epoch() {
		i.loc.RLock()
		if i.parent != nil {
			i.parent.keepSiblings(req.Siblings, rep.Siblings, batches)
		}
		i.loc.RUnlock()
	}
	l := &listing{dir: i, batches: []*batch{b}, attrs: attrs == wire.AttrsAll, next: rep.Next, complete: rep.EOF, outdated: &names{}}
	if old := i.list.Load(); host != 0 && !i.fs.shared {
		if old == nil || old.complete || old.next != host || old.size > maxListing {
			return b, rep.EOF, nil
		}
		l.batches = append(slices.Clip(old.batches), b)
		l.attrs = l.attrs && old.attrs
		l.size, l.outdated = old.size, old.outdated
	}
	size := 0
	for _, s := range rep.Lists {
		size += len(s)
	}
	i.setList(l, changes, size)
	return b, rep.EOF, nil
}

// setList has l, in which size bytes are new, be what is known of the directory, unless it changed since i.changes was changes.
func (i *inode) setList(l *listing, changes uint64, size int) {
	l.size += size
	l.used.Store(true)
	i.list.Store(l)
	// A change meanwhile has not seen l: take it back.
	if i.changes.Load() != changes {
		i.list.CompareAndSwap(l, nil)
		return
	}
	i.fs.lists.add(l, size+256)
}

// batchesOf makes batches of the lists that came with an answer, each with those below it.
func batchesOf(rep *wire.ReadDirRep, attrs bool, changes uint64) []*batch {
	all := make([]*batch, len(rep.Lists))
	for n := len(all) - 1; n >= 0; n-- {
		b := &batch{entries: rep.Lists[n], attrs: attrs, changes: changes}
		all[n] = b
		if len(all) == 1 {
			break
		}
		for at := 0; at < len(b.entries); {
			e, next := b.entries.At(at)
			// What is below comes later: a list cannot be below itself.
			if s := int(e.Sub); s > n && s < len(all) {
				b.subs = append(b.subs, sub{at: at})
				b.subs[len(b.subs)-1].b.Store(all[s])
			}
			at = next
		}
	}
	all[0].next = rep.Next
	return all
}

// siblings are listings of directories in a directory that came along with that of another.
type siblings struct {
	mu sync.Mutex
	// +checklocks:mu
	m map[string]*batch
}

func (s *siblings) take(name string) *batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.m[name]
	delete(s.m, name)
	return b
}

// dirsBehind returns directories of i that a walk of the tree will come by after the one of that name: those behind it in the listing, or if
// the walk goes by name (ls -R), in the alphabet.
func (i *inode) dirsBehind(name string) (dirs []string) {
	l := i.list.Load()
	if l == nil {
		return nil
	}
	for _, b := range l.batches {
		_, at := b.find(name)
		if at < 0 {
			continue
		}
		last := i.lastDir.Swap(&visited{b, at, name})
		if last != nil && last.batch == b && at != last.at && (at < last.at) == (name > last.name) {
			i.fs.byName.Store(name > last.name)
		}
		byName := i.fs.byName.Load()
		for next := 0; next < len(b.entries); {
			var e wire.Entry
			here := next
			e, next = b.entries.At(here)
			behind := here > at
			if byName {
				behind = e.Name > name
			}
			if e.Type == unix.DT_DIR && behind && !l.outdated.has(e.Name) && !b.hasSub(here) {
				dirs = append(dirs, e.Name)
			}
		}
		if byName {
			slices.Sort(dirs)
		}
		break
	}
	return dirs[:min(len(dirs), wire.MaxSiblings)]
}

// visited is the directory in a directory that was read last.
type visited struct {
	batch *batch
	at    int
	name  string
}

// keepSiblings keeps those of the listings batches that are of the directories dirs, as lists says.
func (i *inode) keepSiblings(dirs []string, lists []uint32, batches []*batch) {
	s := &siblings{m: make(map[string]*batch, len(lists))}
	for n := range min(len(dirs), len(lists)) {
		if l := lists[n]; l > 0 && l < uint32(len(batches)) {
			s.m[dirs[n]] = batches[l]
		}
	}
	i.siblings.Store(s)
}
