package gofer

import (
	"slices"
	"sort"
	"time"

	"golang.org/x/sys/unix"

	"moat/fsgofer/wire"
)

// On a shared mount every name that is new costs a request. Programs look names up in the order of the listing (find, ls -l) or of the alphabet (git
// status). After a few in a row one request looks the next ones up, too, and brings a descriptor of each: of those the attributes are seen as they are by
// then, and the names are true as long as the directory has the same change time.

// The orders of a batch.
const (
	listedOrder = iota
	nameOrder
	orders
)

// maxOpens is how many requests for names that come have their files opened, if none is opened any more.
const maxOpens = 8

// order sorts the batch.
func (b *batch) order() {
	for at := 0; at < len(b.entries); {
		e, next := b.entries.At(at)
		b.listed = append(b.listed, uint32(at))
		b.sorted = append(b.sorted, e.Name)
		at = next
	}
	slices.Sort(b.sorted)
}

// place is where an entry is in each of the orders.
func (b *batch) place(name string, at int) (p [orders]int) {
	b.ordered.Do(b.order)
	p[listedOrder] = sort.Search(len(b.listed), func(n int) bool { return int(b.listed[n]) >= at })
	p[nameOrder], _ = slices.BinarySearch(b.sorted, name)
	return p
}

// from are names of the batch in an order, from a place on.
func (b *batch) from(order, place, most int) (names []string) {
	end := min(place+most, len(b.sorted))
	if order == nameOrder {
		return b.sorted[place:end]
	}
	for _, at := range b.listed[place:end] {
		e, _ := b.entries.At(int(at))
		names = append(names, e.Name)
	}
	return names
}

// expectLooks notes that name in the directory i is looked up. If it is one of a row it returns it and which are probably looked up next.
func (i *inode) expectLooks(name string) []string {
	l := i.list.Load()
	if l == nil {
		looks := max(i.fs.looks[listedOrder].Load(), i.fs.looks[nameOrder].Load())
		if n := i.misses.Add(1); n%8 != inRow && (n != 1 || looks < inRow) {
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
	_, at := b.find(name)
	if at < 0 {
		return nil
	}
	last := i.row.Load()
	r := &row{batch: b, next: b.place(name, at)}
	best := listedOrder
	for o := range orders {
		from, run := 0, int(i.fs.looks[o].Load()) // as it went in the directory before
		if last != nil && last.batch == b {
			from, run = last.next[o], last.run[o]
		}
		if d := r.next[o] - from; d < 0 || d > gap {
			run = 0
		}
		r.run[o] = run + 1
		i.fs.looks[o].Store(int32(min(r.run[o], inRow)))
		if r.run[o] > r.run[best] {
			best = o
		}
	}
	var more []string
	if r.run[best] >= inRow {
		more = b.from(best, r.next[best], wire.MaxFDs-1)
		r.next[best] += len(more) - 1
	}
	for o := range orders {
		r.next[o]++
	}
	i.row.Store(r)
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
