package gofer

import (
	"sync"

	"golang.org/x/sys/unix"

	"moat/fsgofer/wire"
)

// Programs that walk a tree (tar, grep -r, cp -r) open the files of a directory in one of its orders (lookahead.go). After a few opens in a row the gofer is
// asked for descriptors of the next files with the same request.

// openAhead are descriptors of files in a directory that nobody has opened yet; on a shared mount, of what nobody has looked up (lookahead.go).
type openAhead struct {
	dir   *inode
	epoch int64 // the directory's change time for which the names are true, on a shared mount
	mu    sync.Mutex
	// +checklocks:mu
	files map[string]openedFile
}

type openedFile struct {
	fd   int
	node wire.Node
	// On a shared mount: data: the descriptor is one for reading; owned: the node's owner is the one as of its change time, be it for sure.
	data, owned, sure bool
}

// drop closes that of name, if there is one.
func (o *openAhead) drop(name string) {
	if f, ok := o.take(name); ok {
		unix.Close(f.fd)
	}
}

func (o *openAhead) take(name string) (openedFile, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f, ok := o.files[name]
	delete(o.files, name)
	return f, ok
}

// close closes all.
func (o *openAhead) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, f := range o.files {
		unix.Close(f.fd)
	}
	o.files = nil
}

// evict implements evictable.
func (o *openAhead) evict() bool {
	o.dir.opened.CompareAndSwap(o, nil)
	o.close()
	return true
}

// takeOpened returns a descriptor of i that was opened ahead; -1: none was. (The attributes that it came with are of that time.)
func (i *inode) takeOpened() int {
	i.loc.RLock()
	defer i.loc.RUnlock()
	if i.parent == nil {
		return -1
	}
	o := i.parent.opened.Load()
	if o == nil {
		return -1
	}
	f, ok := o.take(i.name)
	if !ok {
		return -1
	}
	if keyOf(&f.node.Attr) != i.key {
		unix.Close(f.fd)
		return -1
	}
	return f.fd
}

// expectOpens notes that the file name in directory i is opened, and returns which are probably opened next.
func (i *inode) expectOpens(name string) (more []string) {
	l := i.list.Load()
	if l == nil {
		return nil
	}
	for _, b := range l.batches {
		_, at := b.find(name)
		if at < 0 {
			continue
		}
		if b.opens.Add(1) < inRow && i.fs.longestRow() < inRow {
			return nil // one or two are no row: it need not be sorted
		}
		for _, e := range i.expect(b, at) {
			if e.Type == unix.DT_REG && e.Name != name && !l.outdated.has(e.Name) {
				more = append(more, e.Name)
			}
		}
		return more
	}
	return nil
}

// keepOpened keeps the descriptors fds of those of names that have attributes.
func (i *inode) keepOpened(names []string, attrs []wire.Attr, fds []int) {
	o := &openAhead{dir: i, files: make(map[string]openedFile, len(fds))}
	for n := range min(len(names), len(attrs)) {
		if attrs[n].Ino == 0 || len(fds) == 0 {
			continue
		}
		o.files[names[n]] = openedFile{fd: fds[0], node: wire.Node{Attr: attrs[n]}}
		fds = fds[1:]
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
	i.setOpened(o, len(o.files))
}

// setOpened replaces what i has by o, of so many descriptors.
func (i *inode) setOpened(o *openAhead, weight int) {
	if old := i.opened.Swap(o); old != nil {
		old.close()
	}
	i.fs.fds.add(o, weight)
}
