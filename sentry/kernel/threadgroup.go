package kernel

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/waiter"
	"moat/sentry/kernel/signal"
)

// ThreadGroup is a process: the tasks that share a PID, signals sent to the process, limits and a parent.
type ThreadGroup struct {
	k *Kernel

	pid *PID // constant

	// leader and tasks are changed with tasksMu (for writing) and sigMu held: either is enough to read them.
	leader *Task
	tasks  []*Task // alive or exiting, not yet reaped; the leader stays until the group is reaped

	// Guarded by Kernel.tasksMu.
	parent   *ThreadGroup
	children []*ThreadGroup // the older ones first
	// ppid is the parent's number in the group's own namespace, for reading without tasksMu.
	ppid atomic.Int32
	// parentTask is the thread that made the group (real_parent): PR_SET_PDEATHSIG and __WNOTHREAD look at it.
	parentTask *Task
	pgrp       *ProcessGroup
	hasTTY     bool
	execed     bool
	// exitSignal is sent to the parent when the group ends (clone's CSIGNAL).
	exitSignal linux.Signal
	// live counts tasks that have not begun their final notification.
	live int
	// exitNotified: the group is a zombie and the parent was told. reaped: its PID is free, it is in nobody's tables.
	exitNotified bool
	reaped       bool
	// tracees are the tasks that the process traces, tracedDead those that ended and that it has not been told of; guarded by tasksMu.
	tracees    map[*Task]struct{}
	tracedDead []tracedEnd
	// exitStatus is the wait status of the zombie.
	exitStatus linux.WaitStatus
	// childTimes are the times of reaped children; deadTimes those of threads that ended.
	childTimes cpuTimes
	deadTimes  cpuTimes
	childUsage usage
	deadUsage  usage
	// autoReap: the group is the init of a dying namespace; children vanish.
	autoReap bool

	subreaper    atomic.Bool // PR_SET_CHILD_SUBREAPER
	hasSubreaper atomic.Bool // an ancestor is or was one
	sharesUndo   atomic.Bool // a task was made with CLONE_SYSVSEM

	// children's events: exits, stops, continues. wait(2) sleeps here.
	childEvents waiter.Queue
	// done is closed when the group is a zombie (all tasks ended); host-side waiters use it.
	done chan struct{}

	handlers *SignalHandlers // changed by exec only, with sigMu held

	// sigMu guards the group's and all of its tasks' signal state.
	sigMu sync.Mutex
	// +checklocks:sigMu
	shared signal.Pending
	// sigWaiters is notified (mask: waiter.ReadableEvents) whenever a signal is queued to the group or a task of it: signalfd.
	sigWaiters waiter.Queue
	// exiting: exit_group or a fatal signal; exitCode is the wait status to come.
	exiting  bool             // +checklocks:sigMu
	exitCode linux.WaitStatus // +checklocks:sigMu
	// lost is what Lost returns.
	lost string // +checklocks:sigMu
	// execer is the thread that is killing the others in execve.
	execer *Task // +checklocks:sigMu
	// lastTaker is the thread that was found last to take a signal to the process (curr_target).
	lastTaker *Task // +checklocks:sigMu
	stop      groupStop
	// init processes ignore signals without handlers from inside their namespace (SIGNAL_UNKILLABLE).
	unkillable bool

	limitsMu sync.Mutex // serialises changes of limits, and guards cpuWatch
	limits   limitTable

	startTime time.Time // monotonic

	// oomScoreAdj is /proc/PID/oom_score_adj; below oomScoreAdjMin it goes with CAP_SYS_RESOURCE only.
	oomScoreAdj, oomScoreAdjMin atomic.Int32

	// Timers is the timer subsystem's state of this process: itimers and POSIX timers. It is set once before the first task runs.
	Timers GroupTimers

	cpuWatch cpuWatch
}

// GroupTimers is what the timer subsystem keeps for one process.
type GroupTimers interface {
	// Exec is called at execve (POSIX timers are deleted); Exit when the last thread ends.
	Exec()
	Exit()
}

// Kernel is the kernel that tg runs in.
func (tg *ThreadGroup) Kernel() *Kernel { return tg.k }

// ID is the group's PID object.
func (tg *ThreadGroup) ID() *PID { return tg.pid }

// PIDIn is the process ID as ns sees it, 0 if it does not.
func (tg *ThreadGroup) PIDIn(ns *PIDNamespace) int32 { return tg.ID().In(ns) }

// Leader is the task whose thread ID is the process ID.
func (tg *ThreadGroup) Leader() *Task {
	tg.k.tasksMu.RLock()
	defer tg.k.tasksMu.RUnlock()
	return tg.leader
}

// Tasks are the group's tasks, zombies included, the leader first.
func (tg *ThreadGroup) Tasks() []*Task {
	tg.k.tasksMu.RLock()
	defer tg.k.tasksMu.RUnlock()
	return append([]*Task(nil), tg.tasks...)
}

// NumTasks is the number of threads.
func (tg *ThreadGroup) NumTasks() int {
	tg.k.tasksMu.RLock()
	defer tg.k.tasksMu.RUnlock()
	return len(tg.tasks)
}

// Parent is the parent process, nil for a process started from outside.
func (tg *ThreadGroup) Parent() *ThreadGroup {
	tg.k.tasksMu.RLock()
	defer tg.k.tasksMu.RUnlock()
	return tg.parent
}

// Children are the child processes, zombies included.
func (tg *ThreadGroup) Children() []*ThreadGroup {
	tg.k.tasksMu.RLock()
	defer tg.k.tasksMu.RUnlock()
	return slices.Clone(tg.children)
}

// ProcessGroup is the group's process group; nil after it was reaped.
func (tg *ThreadGroup) ProcessGroup() *ProcessGroup {
	tg.k.tasksMu.RLock()
	defer tg.k.tasksMu.RUnlock()
	return tg.pgrp
}

// Session is the group's session; nil after it was reaped.
func (tg *ThreadGroup) Session() *Session {
	tg.k.tasksMu.RLock()
	defer tg.k.tasksMu.RUnlock()
	if tg.pgrp == nil {
		return nil
	}
	return tg.pgrp.session
}

// Foreground is the foreground process group of the controlling terminal (tpgid), nil if there is none.
func (tg *ThreadGroup) Foreground() *ProcessGroup {
	tg.k.tasksMu.RLock()
	defer tg.k.tasksMu.RUnlock()
	if j := tg.ttyLocked(); j != nil {
		return j.foreground
	}
	return nil
}

// StartTime is when the process was made.
func (tg *ThreadGroup) StartTime() time.Time { return tg.startTime }

// Done is closed when the process has ended; ExitStatus is valid then.
func (tg *ThreadGroup) Done() <-chan struct{} { return tg.done }

// ExitStatus is the wait status of an ended process.
func (tg *ThreadGroup) ExitStatus() linux.WaitStatus {
	tg.k.tasksMu.RLock()
	defer tg.k.tasksMu.RUnlock()
	return tg.exitStatus
}

// OOMScoreAdj is the process' oom_score_adj.
func (tg *ThreadGroup) OOMScoreAdj() int32 { return tg.oomScoreAdj.Load() }

// SetOOMScoreAdj is __set_oom_adj of fs/proc/base.c: old says by oom_adj, mighty that the caller has CAP_SYS_RESOURCE. EACCES.
func (tg *ThreadGroup) SetOOMScoreAdj(v int32, old, mighty bool) error {
	least := tg.oomScoreAdjMin.Load()
	if old {
		least = tg.oomScoreAdj.Load()
	}
	if v < least && !mighty {
		return unix.EACCES
	}
	tg.oomScoreAdj.Store(v)
	if mighty && !old {
		tg.oomScoreAdjMin.Store(v)
	}
	return nil
}

// Subreaper reports whether the process adopts orphaned descendants.
func (tg *ThreadGroup) Subreaper() bool { return tg.subreaper.Load() }

// SetSubreaper is prctl(PR_SET_CHILD_SUBREAPER).
func (tg *ThreadGroup) SetSubreaper(on bool) {
	tg.k.tasksMu.Lock()
	defer tg.k.tasksMu.Unlock()
	tg.subreaper.Store(on)
	if on {
		tg.markSubreaper()
	}
}

func (tg *ThreadGroup) markSubreaper() {
	for _, c := range tg.children {
		if !c.hasSubreaper.Swap(true) {
			c.markSubreaper()
		}
	}
}

// SignalWaiters is notified (waiter.ReadableEvents) whenever a signal is queued to the process or to one of its tasks.
func (tg *ThreadGroup) SignalWaiters() *waiter.Queue { return &tg.sigWaiters }
