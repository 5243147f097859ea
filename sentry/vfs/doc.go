// Package vfs is the virtual file system: dentries, mounts, path resolution, permission checks, open files, descriptor tables, file locks and
// file events. File systems implement FileSystem, Inode and FileImpl; system calls use the functions named after them (Open,
// Mkdir, Rename, ...).
//
// # References
//
// A Path holds a reference to its Mount and its Dentry; a Dentry to its parent; a Mount to the place it is mounted on. Dentries whose
// count is zero stay cached (see dentryCache) unless they are unhashed: unlinked, or of a file system with CacheNone. An Inode lives
// in VFS as long as a Dentry (or a watch) has it; then Evict is called.
//
// # Locks, in order
//
//	super.renameMu                 renames between directories
//	  dirState.ops                 an ancestor before a descendant; unrelated ones by id, under renameMu
//	    locks of file systems
//	    dirState.mu                children; two of them by id
//	      dentryCache.mu
//	    inodeState.mu              held over Inode.Evict
//	FileDescription.offMu          before locks of file systems
//	FSContext.mu                   an fsopen(2) file; then mountMu, and the locks of the file system that it makes
//	mountMu                        the shape of mount trees; behind dirState.ops, before dirState.mu
//	FDTable.mu                     a leaf
//	lockContext.mu, then blockedMu
//	fileExt.mu, watchSet.mu, handleTable.mu  leaves
//
// A cached path walk takes dirState.mu for reading, and references; nothing else, and it allocates nothing. DecRef may release a file or
// evict an inode: it is called without any of these locks, but for ops.
//
// # Invariants
//
// Dentry.inode never changes. A directory has one hashed Dentry. The children of a Dentry with dDeleted are empty but for negative ones.
// A mount that is locked stays where it is for as long as its parent: what it covers is never seen in its namespace.
// Inodes embed InodeDefaults, where VFS keeps what it knows of a file: locks, watches, writers, FIFO state.
package vfs
