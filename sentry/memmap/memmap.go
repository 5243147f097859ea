// Package memmap is what an address space (sentry/mm) and the files that can be mapped into it know of each other.
//
// A Mappable is the identity of a mapped object: all mappings of one tmpfs inode, say, share one Mappable. It
// translates ranges of itself to ranges of a host file (the memory file, or a file donated by the gofer).
package memmap

import (
	"gvisor.dev/gvisor/pkg/hostarch"
)

// FileRange is a range of offsets in a file, in bytes, [Start, End).
type FileRange struct{ Start, End uint64 }

// Length is the number of bytes in fr.
func (fr FileRange) Length() uint64 { return fr.End - fr.Start }

// File is a host file whose pages a guest may see.
// The memory file is one; each host file donated by the gofer is another.
type File interface {
	// FD is the sentry's descriptor of the file, open for as long as the File is referenced.
	FD() int

	// IncRef and DecRef count references to pages of fr. For the memory file the last DecRef frees the pages;
	// for a host file they keep the descriptor open.
	IncRef(fr FileRange)
	DecRef(fr FileRange)

	// Slices calls fn with the sentry's own mapping of fr, in order, as few slices as possible. Files that the sentry does not
	// keep mapped (host files, whose truncation by others would raise SIGBUS) return ENODEV: use ReadAt and WriteAt.
	Slices(fr FileRange, fn func(b []byte) error) error

	// ReadAt and WriteAt copy; short counts past the end of the file come with io.EOF or an Errno.
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
}

// Translation says that range Source of a Mappable is backed by File from Offset on.
type Translation struct {
	Source FileRange
	File   File
	Offset uint64
	// Perms bounds how Source may be mapped now: a translation for reading of a page that must be copied on write,
	// or whose writes must be noticed, lacks Write.
	Perms hostarch.AccessType
}

// Mappable is a memory-mapped object.
//
// Lock order: MemoryManager.mappingMu -> MemoryManager.activeMu -> locks of the Mappable. Invalidate is called with
// no lock of the Mappable held.
type Mappable interface {
	// AddMapping and RemoveMapping tell the object that ar of ms maps it from offset on. writable is true if the
	// mapping is shared and may become writable. Mappings are split and joined without notice: RemoveMapping may name a part of what one AddMapping
	// named, or parts of several.
	AddMapping(ms Space, ar hostarch.AddrRange, offset uint64, writable bool) error
	RemoveMapping(ms Space, ar hostarch.AddrRange, offset uint64, writable bool)

	// Translate returns translations, ascending and without holes, that cover at least required and at most optional (which
	// contains required). The pages come with a reference each (File.IncRef) that the caller drops.
	// unix.EFAULT/SIGBUS: a page of required lies beyond the end of the object: *BusError. Pages read from the object for a write access
	// are allocated, zeroed or filled.
	Translate(required, optional FileRange, at hostarch.AccessType) ([]Translation, error)
}

// Wide is implemented by Mappables whose translations cost the same for any length and take nothing (a host file): mm then
// asks for a whole mapping at its first fault, and the host's own page faults do the rest. Translate may return less than optional,
// and must not go beyond the last page of the file.
type Wide interface {
	TranslatesWide() bool
}

// Space is an address space that maps Mappables: a *mm.MemoryManager.
type Space interface {
	// Invalidate drops translations of ar, which must be asked for again at the next access. If private is
	// true, private copies of its pages go too (truncation); if false they stay (page replaced on copy-up).
	Invalidate(ar hostarch.AddrRange, private bool)
}

// BusError is returned by Translate when the range lies beyond the end of the object; the guest gets SIGBUS.
type BusError struct{ Err error }

func (e *BusError) Error() string { return "bus error: " + e.Err.Error() }
func (e *BusError) Unwrap() error { return e.Err }

// MMapOpts carries an mmap request through FileImpl.ConfigureMMap, which fills in Mappable.
type MMapOpts struct {
	Length                                                             uint64
	Addr                                                               hostarch.Addr
	Offset                                                             uint64 // bytes into Mappable
	Fixed, FixedNoReplace, Unmap, Map32Bit                             bool
	Private, GrowsDown, Stack, Locked, Populate, NoReserve, WipeOnFork bool
	Perms, MaxPerms                                                    hostarch.AccessType
	// Program says that the file is code, which nobody changes while it runs (MAP_DENYWRITE): private copies may be made of more pages than are
	// written. Pages of other files show later changes of the file until they are written themselves.
	Program bool
	// NoExpand says that mremap(2) may only move the whole (VM_DONTEXPAND).
	NoExpand bool
	// Ahead says that what is mapped is about to be used.
	Ahead bool
	// Mappable is nil for anonymous private memory.
	Mappable Mappable
	// Identity names what is mapped in /proc/PID/maps and keeps it alive.
	Identity Identity
	// Hint is a name such as "[heap]" or "[stack]" for mappings without Identity.
	Hint string
}

// Identity is the file behind a mapping.
type Identity interface {
	IncRef()
	DecRef()
	// MappedName is the path shown in /proc/PID/maps; DeviceID and InodeID its device (as st_dev) and inode.
	MappedName() string
	DeviceID() uint64
	InodeID() uint64
}
