package kernel

import (
	"gvisor.dev/gvisor/pkg/abi/linux"

	"moat/platform"
)

// brokenThread ends t's process, whose stub the host has taken away.
func (t *Task) brokenThread(err error) {
	tg := t.tg
	tg.sigMu.Lock()
	tg.loseLocked(err.Error())
	tg.groupExitLocked(linux.WaitStatusTerminationSignal(linux.SIGKILL), t)
	code := tg.exitCode
	tg.sigMu.Unlock()
	t.beginExit(code)
}

// loseLocked notes why the host ended the process. Of the first one the command line tells.
//
// +checklocks:tg.sigMu
func (tg *ThreadGroup) loseLocked(why string) {
	if tg.exiting || tg.lost != "" {
		return
	}
	tg.lost = why
	if n := tg.pid.nums[0]; n != 1 {
		tg.k.log.Error("process killed: "+why, "pid", n, "name", tg.leader.name)
	}
}

// Lost says why a process died that was ended from outside of the container, by the end of its host process; "" for all others.
func (tg *ThreadGroup) Lost() string {
	tg.sigMu.Lock()
	defer tg.sigMu.Unlock()
	return tg.lost
}

// spaceGone kills the processes whose address space has ended on the host. Some task of theirs may be in a call that waits, and would not find out.
func (k *Kernel) spaceGone(as platform.AddressSpace) {
	const why = "a host process of the sandbox (stub) was killed from outside"
	if as == nil {
		// No program can be started any more.
		if tg := k.Init(); tg != nil {
			tg.sigMu.Lock()
			tg.loseLocked(why)
			tg.sigMu.Unlock()
		}
		k.Kill()
		return
	}
	k.tasksMu.RLock()
	defer k.tasksMu.RUnlock()
	for _, p := range k.allPIDs.pids {
		if p.task == nil {
			continue
		}
		m := p.task.mm.Load()
		if m == nil || m.AddressSpace() != as {
			continue
		}
		tg := p.task.tg
		tg.sigMu.Lock()
		tg.loseLocked(why)
		tg.sendLocked(tg.leader, nil, kernelInfo(linux.SIGKILL), true)
		tg.sigMu.Unlock()
	}
}
