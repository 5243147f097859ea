// Package stub makes the processes that guest code runs in, for the platforms ptrace and trap.
//
// # Processes
//
// A stub is a host process that is one guest address space at a time. Its leader, the helper, runs no guest code and is not
// traced: it executes mmap, munmap, mprotect and clone as the sentry orders them through a page that the stub maps
// read-only. It alone shares the sentry's descriptor table, so that any file of the sentry's can be mapped. The guest
// threads beside it have an empty descriptor table, and the host lets them make no call but what the platform says, and that only from
// the entry code (filter.go).
//
// The first stub, the zygote, is forked from the sentry in New. All others are clones that its helper makes of its
// own process with CLONE_PARENT, so that the sentry is their parent and reaps them: after start-up the sentry never
// forks. Stubs are used again, and some are always ready (pool.go); so are the guest threads of a stub, while its address space lives.
//
// The OS thread that forked the first stub is the parent of all. It waits for stubs that end without having been released (somebody's
// SIGKILL, the host's out-of-memory killer, an order that the host refuses), wakes who waits for them and tells the sentry (Host.Watch). That a
// guest thread alone has ended the host says in its area.
//
// # Layout
//
// The top of a stub's address space, from stubBase, holds the entry code, the helper's code, the order page (read-only), the reply page, and the areas of
// guest threads. What guest threads can write is theirs to forge. That a batch is done, which pages that get another owner depend on, and the IDs
// of new processes and threads the helper therefore tells through the control file, of which they have no descriptor: the former by writing
// a word of the order page, the latter by the file's position. A helper that cannot carry out an order ends its process.
//
// # Locks
//
// space.orderMu guards the order page; host.resultMu, taken after it, the control file's position; space.queueMu, taken after both, what is queued.
// space.lifeMu, areasMu and host.mu are leaves, but that host.mu is held while a child is reaped that is nobody's.
// thread.mu guards the thread's life against Interrupt.
package stub
