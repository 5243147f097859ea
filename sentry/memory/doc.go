// Package memory is the sandbox's RAM: one memfd, mapped whole into the sentry, with an allocator of page runs.
//
// It owns every page that a guest can see other than those of host files: who uses a page is counted in a reference
// count per page, and a page whose count falls to zero is free. Free pages that have contents ("dirty") are zeroed when
// they are allocated again; those that stay free are punched out of the memfd a moment later, so the host gets them back.
//
// The file is sparse and far larger than the limit on the bytes in use, so offsets are cheap: a block of 2 MiB may be
// kept for one address range (AllocateIn, AllocateAt), which keeps runs that are neighbours in an address space neighbours
// in the file, and the host's map entries few.
//
// Each page is charged to an Account, a container's, until it is free, whoever uses it by then.
//
// Locks: File.mu guards the free lists and bitmaps; it is a leaf, held for well under a microsecond, and never while
// pages are zeroed or punched. Reference counts and the count of bytes in use are atomic. Shared.mu is taken before File.mu.
//
// Invariants: a page is free (bit set in block.free) or being punched, or has a count of at least one. A free page whose
// dirty bit is clear reads as zeroes.
package memory
