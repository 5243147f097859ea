// Package fsgofer is the gofer's server: it serves directory trees of the host to the sentry (see fsgofer/wire), in a
// process of its own.
//
// The sentry is not trusted. It names files by handles that the gofer gave out and by paths below them; every
// name is checked, and opened with openat2(RESOLVE_BENEATH|RESOLVE_NO_MAGICLINKS|RESOLVE_NO_SYMLINKS). A handle is an O_PATH
// descriptor, so that finding a file never opens a device or a FIFO. Only regular files are opened for data: by way of
// the descriptor itself (the working directory is /proc/self/fd, and "7" reopens descriptor 7), never by name again, so
// what was checked is what is opened. The sentry gets that descriptor and the gofer sees none of the data.
//
// Permissions are the sentry's business, not the gofer's; read-only mounts and the ban of device nodes on shared mounts are
// enforced here too.
//
// Workers: a few goroutines, of which one at a time, the holder of the baton, is blocked in recvmsg; each does whole requests.
//
// Locks: handle.dirMu (the position of a directory being read) -> Server.mu (the table of handles).
// A handle in use is referenced; its descriptor is closed by the last reference, so no descriptor number is ever reused under an operation.
package fsgofer
