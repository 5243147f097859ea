// Package kernel has tasks, thread groups, namespaces, sessions, signals, wait, credentials changes and limits: what a
// container's processes are. One guest thread is one Task and one goroutine locked to its OS thread.
//
// # State
//
// Everything reachable from Kernel is the whole state of the container while all tasks are at the user boundary: a blocked
// call waits in Task.Block, a signal unwinds it to the boundary with a restart code, and nothing lives on a goroutine's
// stack alone.
//
// # Locks, outermost first
//
//	FSContext.mu, vfs and mm locks are never held while calling into this package, except by file implementations
//	that send signals or notify waiters: those use only the locks marked (leaf-callable).
//
//	oomKiller.mu        the choice of a process to be killed for want of memory
//	Kernel.tasksMu      the process tree: parents, children, PID tables, groups, sessions, ttys' job control, exit states
//	  ThreadGroup.sigMu (leaf-callable) pending signals, masks, group stop, exit code of one thread group
//	    SignalHandlers.mu  the actions (shared by CLONE_SIGHAND)
//	    users.mu           counts per user
//	sigios.sending      held while SIGIO of files is sent, which takes tasksMu; a task takes it with nothing else held, at the end of a call
//	  sigios.mu (leaf-callable)
//	keys.Store.mu       key rings (leaf)
//	Task.mu             what other tasks may look at: name, files, namespaces, fs context pointers (leaf; held for copying only)
//	ThreadGroup.limitsMu   resource limits (leaf)
//	Cgroup.mu          whether a control group is frozen (leaf)
//	quota.mu           whether its quota is used up (leaf)
//
// tasksMu is taken for reading by lookups and for writing by clone, exit, exec, wait's reaping, setpgid and setsid.
// kill(2) of one process needs it for reading only to find the target.
//
// A task's system call path takes none of them: own fields are read without locks by the task's goroutine, credentials
// and the address space are atomic pointers, and Task.work is one atomic word that says whether anything needs doing before
// the next return to the guest.
package kernel
