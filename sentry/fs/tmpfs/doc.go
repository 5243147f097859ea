// Package tmpfs is a file system in the sandbox's memory (tmpfs(5)): /tmp, /dev/shm, memfd_create(2), and the upper layer of an overlay.
//
// It owns the pages of its regular files, which are pages of the memory file; a page is in at most one file.
//
// Locks, in order: regular.writeMu (a write, truncation or fallocate as a whole; held while guest memory is touched) -> locks of
// address spaces -> regular.mu (the page map; never held while guest memory is touched). inode.mu guards attributes, directory.mu
// the entries; both are leaves. An inode's nlink changes only with the directory locked by VFS, or, for a file with several
// names, under inode.mu.
//
// Invariants: bytes of a page beyond the size read as zero unless a mapping wrote them. fs.blocks counts the pages of all
// files.
package tmpfs
