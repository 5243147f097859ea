package kernel

import (
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/sentry/mm"
)

// oomKiller is the OOM killer's state (mm/oom_kill.c).
type oomKiller struct {
	// mu serialises the choice; tasksMu and others are taken under it.
	mu sync.Mutex
	// victim is the process that was killed last.
	victim *ThreadGroup // +checklocks:mu
	kills  atomic.Uint64
	// news is closed by the next kill.
	news chan struct{} // +checklocks:mu
}

// OOMKills is the number of processes that were killed for want of memory (/proc/vmstat oom_kill).
func (k *Kernel) OOMKills() uint64 { return k.oom.kills.Load() }

// AwaitOOM returns cg's OOMKills once that is more than seen, or ended or stop is closed.
func (k *Kernel) AwaitOOM(cg *Cgroup, seen uint64, ended, stop <-chan struct{}) uint64 {
	for {
		k.oom.mu.Lock()
		news, n := k.oom.news, cg.OOMKills()
		k.oom.mu.Unlock()
		if n > seen {
			return n
		}
		select {
		case <-news:
		case <-ended:
			return n
		case <-stop:
			return n
		}
	}
}

// oomScoreAdjMin is the oom_score_adj of a process that is never chosen.
const oomScoreAdjMin = -1000

// OOMBadness is oom_badness: how many pages the end of a process with address space m and adjustment adj would free, weighed by adj; false if it
// may not be chosen.
func (k *Kernel) OOMBadness(m *mm.MemoryManager, adj int32) (points int64, ok bool) {
	if adj == oomScoreAdjMin {
		return 0, false
	}
	return int64(m.RSS())/hostarch.PageSize + int64(adj)*(k.OOMTotal()/1000), true
}

// OOMTotal is the number of pages that the points of OOMBadness are a part of.
func (k *Kernel) OOMTotal() int64 { return int64(k.memory.Limit() / hostarch.PageSize) }

// worstLocked is the process of cg, or of all if it is nil, with the most points (select_bad_process), and its address space; nil if none may be chosen.
//
// Preconditions: tasksMu is held.
func (k *Kernel) worstLocked(cg *Cgroup) (worst *ThreadGroup, of *mm.MemoryManager) {
	most := int64(0)
	for _, p := range k.allPIDs.pids {
		if p.group == nil || cg != nil && !p.group.leader.Cgroup().Below(cg) {
			continue
		}
		for _, t := range p.group.tasks {
			m := t.mm.Load()
			if m == nil {
				continue
			}
			if n, ok := k.OOMBadness(m, p.group.oomScoreAdj.Load()); ok && (worst == nil || n > most) {
				worst, of, most = p.group, m, n
			}
			break
		}
	}
	return worst, of
}

// chooseVictim kills the process of cg, or of all if it is nil, that is to give its memory back, with all that share it, and returns it; or the one killed before, if it
// has not ended yet. nil: there is none.
func (k *Kernel) chooseVictim(cg *Cgroup) *ThreadGroup {
	o := &k.oom
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.victim != nil {
		select {
		case <-o.victim.done:
		default:
			return o.victim
		}
	}
	k.tasksMu.RLock()
	defer k.tasksMu.RUnlock()
	victim, m := k.worstLocked(cg)
	o.victim = victim
	if victim == nil {
		return nil
	}
	o.kills.Add(1)
	for c := victim.leader.Cgroup(); c != nil; c = c.parent {
		c.oomKills.Add(1)
	}
	close(o.news)
	o.news = make(chan struct{})
	if victim == k.init {
		k.hooks.InitOOM()
	}
	k.log.Warn("out of memory: killed process", "pid", victim.pid.nums[0], "name", victim.leader.Name(),
		"rss_kb", m.RSS()>>10, "oom_score_adj", victim.oomScoreAdj.Load())
	var all *Cgroup // memory.oom.group: the highest that says so
	for c := victim.leader.Cgroup(); c != nil && (cg == nil || c.Below(cg)); c = c.parent {
		if c.OOMGroup.Load() {
			all = c
		}
	}
	for _, p := range k.allPIDs.pids {
		if p.task != nil && (all != nil && p.task.Cgroup().Below(all) || p.task.tg == victim || p.task.mm.Load() == m) {
			p.task.tg.SendSignal(kernelInfo(linux.SIGKILL))
		}
	}
	return victim
}

// isVictim reports whether tg is the process that was killed last.
func (k *Kernel) isVictim(tg *ThreadGroup) bool {
	k.oom.mu.Lock()
	defer k.oom.mu.Unlock()
	return k.oom.victim == tg
}

// shortOfMemory says whether a failure may be for want of memory.
func (t *Task) shortOfMemory() bool {
	return t.k.memory.Exhausted() || t.MemoryAccount().Exhausted() != nil
}

// outOfMemory is called where t got no memory and holds no locks: a process is killed, and once it has ended t may try again. False: t itself is
// killed.
func (t *Task) outOfMemory() bool {
	var cg *Cgroup
	if full := t.MemoryAccount().Exhausted(); full != nil {
		for cg = t.Cgroup(); cg.parent != nil && (cg.Account() != full || cg.parent.Account() == full); cg = cg.parent {
		}
	} else if n := t.k.oom.kills.Load(); n != t.oomKills && !t.k.memory.Exhausted() {
		t.oomKills = n
		return true // a victim has ended since t got nothing
	}
	victim := t.k.chooseVictim(cg)
	if victim == nil {
		t.tg.SendSignal(kernelInfo(linux.SIGKILL))
		return false
	}
	for c := victim.leader.Cgroup(); c != nil; c = c.parent {
		c.OOMs.Notify(cgroupEvent)
	}
	return victim != t.tg && t.BlockKillable(victim.done) == nil
}
