// Package mm is a guest's address space: what is mapped where (VMAs), which pages are behind it (PMAs), page faults,
// copy-on-write, and moving bytes to and from guest memory.
//
// A VMA is a guest mapping, as mmap(2) made it. A PMA is a run of pages of one host file (the memory file, or a file
// handed over by the gofer) that stands behind a part of a VMA now. Every PMA is also mapped in the platform's address
// space, or queued to be, with PMA.perms; so a guest access that the PMA allows never faults twice, and one that it does not allow always
// comes here. An anonymous PMA ("anon") belongs to this address space and to those forked from it; if "cow" is set others may hold its pages,
// and it is copied before the first write unless its pages turn out to have one owner only.
//
// Address spaces that were forked from each other are kin. What the platform has mapped for one that ended may stay, for the next fork of a relative: of pages that
// are others' by then no guest thread is left that could reach them, and the fork replaces whatever is not as it must be before its own thread runs (kin.go).
//
// Locks, in order:
//
//	MemoryManager.mu (read: look at VMAs and PMAs, copy; write: change them)
//	  locks of a memmap.Mappable, in AddMapping, RemoveMapping and Translate
//	    kin.mu
//	      locks of memory.File, of the platform's address space
//
// Nothing is called under mu that may take mu of another MemoryManager, or wait for a guest. Identities are released, the platform is flushed,
// and pages that another running thread might still reach are freed after mu is dropped (see MemoryManager.unlock). Callers of CopyIn, CopyOut
// and Blocks must hold no lock that a Mappable's Translate takes.
//
// Changes to the platform's address space are queued, not flushed: a task's changes are in force before it runs guest code again. Only these
// flush: Fork of a space with several users, Invalidate (the file's pages may get another owner as soon as it returns), and freeing pages of a space with several users.
package mm
