// Package ptrace is the platform that runs anywhere: guest threads are host threads traced with PTRACE_SYSEMU.
//
// # Processes
//
// A stub is a host process that is one guest address space. Its leader, the helper, runs no guest code and is not
// traced: it executes mmap, munmap, mprotect and clone as the sentry orders them through a page that the stub maps
// read-only. It alone shares the sentry's descriptor table, so that any file of the sentry's can be mapped. The guest
// threads beside it have an empty descriptor table and a seccomp filter that lets nothing through but exit; what
// guest code calls is stopped by PTRACE_SYSEMU before that.
//
// The first stub, the zygote, is forked from the sentry in New. All later ones are clones that a helper makes of its
// own process with CLONE_PARENT, so that the sentry is their parent and reaps them: after start-up the sentry never
// forks. A guest thread is traced by the OS thread of the goroutine that made it, for its whole life.
//
// The OS thread that forked the first stub is the parent of all. It waits for stubs that end without having been released (somebody's
// SIGKILL, the host's out-of-memory killer, an order that the host refuses), wakes who waits for them and tells the sentry (Host.Watch). That a
// guest thread alone has ended the host says in its area.
//
// # Layout
//
// The top of a stub's address space, from stubBase, holds the entry code, the filter, the order page (read-only) and
// the reply page (writable, as a guest thread could write there anyway). The sentry reads one word of the reply page:
// the number of the last batch done. A helper that cannot carry out an order ends its process; a guest that forges
// the word sees a stale mapping of memory of its own sandbox at worst.
//
// # Locks
//
// space.queueMu guards what is queued; space.orderMu, taken before it, guards the order page. space.lifeMu,
// usedMu and host.mu are leaves, but that host.mu is held while a child is reaped that is nobody's. thread.mu guards the thread's
// life against Interrupt.
package stub
