package gofer

import (
	"cmp"
	"slices"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"moat/fsgofer/wire"
)

// Programs want the files of a directory in the order of its listing (find, ls -l), of the alphabet (git status) or of the inode numbers (tar). After a few in
// a row it is clear which come next. On a shared mount, where every name that is new costs a request, one looks the next ones up, too, and brings a descriptor
// of each: of those the attributes are seen as they are by then, and the names are true as long as the directory has the same change time.

// The orders of a batch.
const (
	listed = iota
	byName
	byInode
	orders
)

// inRow is how many files in a row make it likely that more follow, and gap how many may be left out.
const (
	inRow = 3
	gap   = 8
)

// maxOpens is how many requests for names that come have their files opened, if none is opened any more.
const maxOpens = 8

// row is how many files were wanted in each of the orders of a batch, and the place in it at which the next is expected.
type row struct {
	batch     *batch
	next, run [orders]int
}

// sort puts the entries into their orders.
func (b *batch) sort() {
	for at := 0; at < len(b.entries); {
		b.order[listed] = append(b.order[listed], uint32(at))
		_, at = b.entries.At(at)
	}
	for o, less := range [orders]func(x, y wire.Entry) int{
		byName:  func(x, y wire.Entry) int { return strings.Compare(x.Name, y.Name) },
		byInode: func(x, y wire.Entry) int { return cmp.Compare(x.Ino, y.Ino) },
	} {
		if less != nil {
			b.order[o] = slices.SortedFunc(slices.Values(b.order[listed]), func(x, y uint32) int { return less(b.at(x), b.at(y)) })
		}
	}
}

func (b *batch) at(off uint32) wire.Entry {
	e, _ := b.entries.At(int(off))
	return e
}

// place is where the entry at an offset is in each of the orders.
func (b *batch) place(at int) (p [orders]int) {
	b.ordered.Do(b.sort)
	e := b.at(uint32(at))
	p[listed], _ = slices.BinarySearch(b.order[listed], uint32(at))
	p[byName] = sort.Search(len(b.order[byName]), func(n int) bool { return b.at(b.order[byName][n]).Name >= e.Name })
	p[byInode] = sort.Search(len(b.order[byInode]), func(n int) bool { return b.at(b.order[byInode][n]).Ino >= e.Ino })
	return p
}

// longestRow is how long a row the last was.
func (fs *FS) longestRow() (n int32) {
	for o := range fs.rows {
		n = max(n, fs.rows[o].Load())
	}
	return n
}

// expect notes that the entry at an offset of the directory's batch b is wanted. If it is one of a row it returns it and those that are probably wanted next.
func (i *inode) expect(b *batch, at int) (more []wire.Entry) {
	last := i.row.Load()
	r := &row{batch: b, next: b.place(at)}
	best := 0
	for o := range orders {
		from, run := 0, int(i.fs.rows[o].Load()) // as it went in the directory before
		if last != nil && last.batch == b {
			from, run = last.next[o], last.run[o]
		}
		if d := r.next[o] - from; d < 0 || d > gap {
			run = 0
		}
		r.run[o] = run + 1
		i.fs.rows[o].Store(int32(min(r.run[o], inRow)))
		if r.run[o] > r.run[best] {
			best = o
		}
	}
	n := 1
	if r.run[best] >= inRow {
		next := b.order[best][r.next[best]:]
		n = min(len(next), wire.MaxFDs-1)
		for _, off := range next[:n] {
			more = append(more, b.at(off))
		}
	}
	for o := range orders {
		if r.next[o]++; o == best {
			r.next[o] += n - 1
		}
	}
	i.row.Store(r)
	return more
}

// expectLooks notes that name in the directory i is looked up. If it is one of a row it returns it and which are probably looked up next.
func (i *inode) expectLooks(name string) (more []string) {
	l := i.list.Load()
	if l == nil {
		if n := i.misses.Add(1); n%8 != inRow && (n != 1 || i.fs.longestRow() < inRow) {
			return nil
		}
		if _, _, err := i.fetch1(0, wire.AttrsNone, 0); err != nil {
			return nil
		}
		if l = i.list.Load(); l == nil {
			return nil
		}
	}
	l.used.Store(true)
	b := l.batches[0]
	if _, at := b.find(name); at >= 0 {
		for _, e := range i.expect(b, at) {
			more = append(more, e.Name)
		}
	}
	return more
}

// foundAhead returns what was found of name along with others, or is found now, if it is one of a row; epoch is the directory's change time, 0: not known.
func (i *inode) foundAhead(name string, epoch int64) (openedFile, bool) {
	if !i.fs.shared {
		return openedFile{}, false
	}
	if o := i.opened.Load(); o != nil {
		if epoch == 0 {
			epoch = i.changeTime()
		}
		if f, ok := o.take(name); ok && epoch == o.epoch {
			return f, true
		} else if ok {
			unix.Close(f.fd)
		}
		if epoch != o.epoch && i.opened.CompareAndSwap(o, nil) {
			o.close()
			i.row.Store(nil) // where names change it is of no use to look far ahead
		}
	}
	names := i.expectLooks(name)
	if len(names) < 2 {
		return openedFile{}, false
	}
	if epoch == 0 {
		epoch = i.changeTime()
	}
	if epoch = i.asOf(epoch, 0); epoch == 0 {
		return openedFile{}, false
	}
	o, weight := i.findAll(names, epoch)
	if o == nil {
		return openedFile{}, false
	}
	f, ok := o.take(name)
	i.setOpened(o, weight)
	return f, ok
}

// blind reports whether there is no descriptor of i to look at.
func (i *inode) blind() bool {
	return i != nil && i.look.Load() == nil && i.ro.Load() == nil && i.rw.Load() == nil
}

// findAll looks names up in one request, while the directory's change time is epoch.
func (i *inode) findAll(names []string, epoch int64) (*openAhead, int) {
	req := wire.WalkReq{Settle: true, More: names}
	if i.fs.opens.Load() > 0 {
		i.fs.opens.Add(-1)
		req.Open = true
	}
	now, grain := coarseTime(), i.multigrain()
	var rep wire.WalkRep
	var fds [wire.MaxFDs]int
	n, err := i.walk(&req, &rep, fds[:])
	o := &openAhead{dir: i, epoch: epoch, files: make(map[string]openedFile, n)}
	left := fds[:n]
	for k := range min(len(names), len(rep.More)) {
		f := openedFile{node: rep.More[k]}
		a := &f.node.Attr
		if a.Ino == 0 || len(left) == 0 {
			continue
		}
		f.fd, left = left[0], left[1:]
		f.data = req.Open && a.Mode&unix.S_IFMT == unix.S_IFREG
		here := a.Dev == i.key.dev
		f.owned = here && (grain || past(now, a.Ctime, 0))
		f.sure = here && (grain || past(now, a.Ctime, slack))
		o.files[names[k]] = f
	}
	for _, fd := range left {
		unix.Close(fd)
	}
	if err != nil || !rep.Settled {
		o.close()
		return nil, 0
	}
	return o, len(o.files)
}

// found has i, which was found ahead as f says, take over the descriptor.
func (i *inode) found(f *openedFile) {
	slot := &i.look
	if f.data {
		slot = &i.ro
	}
	i.install(f.fd, slot, 0)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.fetched = time.Time{} // the attributes are of then
	if a := &f.node.Attr; f.owned {
		i.owner.ctime, i.owner.uid, i.owner.gid, i.owner.sure = a.Ctime, a.UID, a.GID, f.sure
	}
}
