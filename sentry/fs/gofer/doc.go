// Package gofer is the file system of the container's root and bind mounts: names and attributes come from the gofer process
// (moat/fsgofer), data from host descriptors that it donates.
//
// An exclusive mount is changed by the sandbox alone, but for names now and then (doubt.go): what is known of it stays known, and names, attributes,
// symlinks, small directories and open descriptors are cached, so that stat, readdir and open of what was seen make no request. The host keeps
// the times: after a write they are asked for again, when someone wants to know them.
//
// What others did to a shared mount before a system call began is seen by it. Two host calls prove that without a request, both fstat(2) of a descriptor
// that can do nothing else (O_PATH): a name is true as long as its directory has the change time that it had before the name was looked up, and the file's
// own attributes are those of now. The proof has three conditions. The time was past when it was read, by the coarse clock that the kernel takes such times
// from, so that a change that begins later has another. The gofer had waited for the changes that were under way, which may have had the time already and
// not yet the name: it reads the directory, under the lock that they hold. And the file system is one that only this kernel changes. Where one is not met
// the name is asked for. (A clock that is set back to the very nanosecond of a change would deceive it.) A file's owner, which the sentry cannot see, is as true as its change
// time; nobody waits for changes of it that are under way, so what is known of it soon after a change is asked for once more.
//
// Directories that were walked to have a handle in the gofer, kept in a bounded cache. Other files, and directories that were only listed, are
// named by a path from the nearest directory with one; when the name goes away and the file is still in use the gofer gives a handle for it (pinned).
// Every request about an inode says which inode number it means, so that a name that another file took on a shared mount is ESTALE, not
// the wrong file.
//
// Fewer requests are more speed than faster ones: each costs tens of microseconds. So one brings what is probably wanted next: a walk the whole
// path (ahead.go) and a descriptor of what will be opened; a few lookups in a directory list it (listing.go); a listing brings attributes, while
// they turn out to be used, and the listings of directories below and beside, while a tree is walked; an open the descriptors of the files behind it, while
// files are opened in one of the listing's orders (openahead.go); a check of a doubted directory those beside it (doubt.go). What came ahead is dropped when
// any name of the mount changes, or bound to its inode's key. On a shared mount names that are looked up in a row bring the next ones, with descriptors, as
// true as any name (lookahead.go).
//
// Bounds, for each mount: 16 MiB of listings, 4096 descriptors that no file uses, and a quarter of the gofer's handles, at most 16384. Inodes are
// those of VFS's dentries (131072 that nobody uses). While memory is short each bound is a sixteenth.
//
// Special files are names only: VFS opens FIFOs, sockets and devices as the sentry's own.
//
// Host calls: recvmsg (MSG_CMSG_CLOEXEC) and sendmsg (MSG_NOSIGNAL) on the gofer's socket; clock_gettime; preadv2 and pwritev2
// (RWF_APPEND, RWF_SYNC, RWF_DSYNC), ftruncate, fallocate, lseek (SEEK_DATA, SEEK_HOLE) and fstat on donated descriptors; close.
//
// Locks, in order: inode.wmu (writes and changes of size; before any lock of an address space) -> inode.loc (where the inode is;
// held over requests that use it; a child's before its ancestors') -> inode.mu (attributes), inode.mapMu, FS.mu, clock.mu:
// leaves. Two loc locks of one rename are taken in order of their inode numbers. The VFS's inode lock is held in Evict, which takes only leaves.
package gofer
