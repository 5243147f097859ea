package vfs

import (
	"sync"

	"golang.org/x/sys/unix"
)

// DeviceKind tells character devices from block devices.
type DeviceKind uint8

const (
	CharDevice DeviceKind = iota
	BlockDevice
)

// DeviceOpen opens a device node at d.
type DeviceOpen func(ctx Context, d *Dentry, flags uint32) (FileImpl, error)

type deviceKey struct {
	kind  DeviceKind
	major uint32
	minor uint32
}

// AnyMinor registers a driver for all minors of a major.
const AnyMinor = ^uint32(0)

var special struct {
	mu sync.RWMutex
	// +checklocks:mu
	devices map[deviceKey]DeviceOpen
	fifo    func(ctx Context, d *Dentry, flags uint32) (FileImpl, error)
}

// RegisterDevice makes open serve device nodes of that number (AnyMinor: of that major).
func RegisterDevice(kind DeviceKind, major, minor uint32, open DeviceOpen) {
	special.mu.Lock()
	defer special.mu.Unlock()
	if special.devices == nil {
		special.devices = make(map[deviceKey]DeviceOpen)
	}
	special.devices[deviceKey{kind, major, minor}] = open
}

// RegisterFIFO sets what opens FIFOs (fifo(7)), once, by sentry/fs/pipe. open may block by ctx until the other end is opened. The
// pipe lives in the inode's Special state.
func RegisterFIFO(open func(ctx Context, d *Dentry, flags uint32) (FileImpl, error)) {
	special.fifo = open
}

// Special gives access to the one VFS-kept value of an inode that FIFOs and bound sockets use: fn gets the current value
// (nil at first) and returns the new one, under the inode's lock. Keep the inode referenced (by an open file or a Path).
func Special(i Inode, fn func(any) any) {
	e := i.vfsState().extension()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.special = fn(e.special)
}

// SetBoundSocket makes sock the socket bound to the socket inode i (unix(7)), nil to unbind. The binder holds a Path to i.
func SetBoundSocket(i Inode, sock any) { Special(i, func(any) any { return sock }) }

// BoundSocket returns what SetBoundSocket set, or nil: ECONNREFUSED.
func BoundSocket(i Inode) (sock any) {
	e := i.vfsState().ext.Load()
	if e == nil {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.special
}

// SpecialOpener is an inode of a device, FIFO or socket that is not the sandbox's own: it is opened by itself.
type SpecialOpener interface {
	OpenSpecial(ctx Context, flags uint32) (FileImpl, error)
}

// OpenSpecial opens the device, FIFO or socket inode of d.
func OpenSpecial(ctx Context, p Path, flags uint32) (FileImpl, error) {
	i := p.Inode()
	if o, ok := i.(SpecialOpener); ok {
		return o.OpenSpecial(ctx, flags)
	}
	switch t := i.Mode() & unix.S_IFMT; t {
	case unix.S_IFSOCK:
		return nil, unix.ENXIO
	case unix.S_IFIFO:
		if special.fifo == nil {
			return nil, unix.ENXIO
		}
		return special.fifo(ctx, p.Dentry, flags)
	default:
		if p.Mount.Flags()&unix.ST_NODEV != 0 {
			return nil, unix.EACCES
		}
		a, err := i.Attr(ctx)
		if err != nil {
			return nil, err
		}
		may := accMode(flags)
		if err := mayUseDevice(ctx, uint32(may&MayRead>>1|may&MayWrite<<1), t, a.Rdev); err != nil {
			return nil, err
		}
		k := deviceKey{CharDevice, unix.Major(a.Rdev), unix.Minor(a.Rdev)}
		if t == unix.S_IFBLK {
			k.kind = BlockDevice
		}
		special.mu.RLock()
		open := special.devices[k]
		if open == nil {
			k.minor = AnyMinor
			open = special.devices[k]
		}
		special.mu.RUnlock()
		if open == nil {
			return nil, unix.ENXIO
		}
		return open(ctx, p.Dentry, flags)
	}
}
