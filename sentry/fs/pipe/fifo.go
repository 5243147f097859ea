package pipe

import (
	"moat/sentry/vfs"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Register makes VFS open FIFOs with this package.
func Register() { vfs.RegisterFIFO(openFIFO) }

// openFIFO is fifo_open (fs/pipe.c): it waits for the other end unless O_NONBLOCK.
func openFIFO(ctx vfs.Context, d *vfs.Dentry, flags uint32) (vfs.FileImpl, error) {
	e := &end{fifo: d.Inode()}
	switch flags & unix.O_ACCMODE {
	case unix.O_RDONLY:
		e.read = true
	case unix.O_WRONLY:
		e.write = true
	case unix.O_RDWR:
		e.read, e.write = true, true
	default:
		return nil, unix.EINVAL
	}
	vfs.Special(e.fifo, func(v any) any {
		p, ok := v.(*Pipe)
		if !ok {
			p = newPipe(0)
		}
		p.files++
		e.p, e.Waiters = p, &p.queue
		return p
	})
	if err := e.enter(ctx, flags&unix.O_NONBLOCK != 0); err != nil {
		e.Release(ctx, nil)
		return nil, err
	}
	return e, nil
}

// enter opens the ends; on error they are counted as open all the same.
func (e *end) enter(ctx vfs.Context, nonblock bool) error {
	p := e.p
	p.mu.Lock()
	alone := e.write && !e.read && p.readers == 0
	if e.read {
		p.readers++
		p.readerGen++
	}
	if e.write {
		p.writers++
		p.writerGen++
	}
	rg, wg := p.readerGen, p.writerGen
	e.gen = -1
	wait := alone || e.read && !e.write && p.writers == 0
	if p.anon {
		alone, wait = false, false
	}
	if wait && nonblock && e.read {
		e.gen = wg
		wait = false
	}
	p.mu.Unlock()
	if alone && nonblock {
		return unix.ENXIO
	}
	p.queue.Notify(waiter.EventInternal)
	if !wait {
		return nil
	}
	w, ch := waiter.NewChannelEntry(waiter.EventInternal)
	p.queue.EventRegister(&w)
	defer p.queue.EventUnregister(&w)
	for {
		p.mu.Lock()
		met := e.read && p.writerGen != wg || e.write && p.readerGen != rg
		p.mu.Unlock()
		if met {
			return nil
		}
		if err := ctx.Block(ch); err != nil {
			return err
		}
	}
}
