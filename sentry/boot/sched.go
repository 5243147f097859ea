package boot

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"gvisor.dev/gvisor/pkg/abi/linux"

	"moat/sentry/kernel"
)

// By Linux's numbers: SCHED_ISO was never there.
var (
	policies  = []specs.LinuxSchedulerPolicy{specs.SchedOther, specs.SchedFIFO, specs.SchedRR, specs.SchedBatch, "-", specs.SchedIdle}
	ioClasses = []specs.IOPriorityClass{"", specs.IOPRIO_CLASS_RT, specs.IOPRIO_CLASS_BE, specs.IOPRIO_CLASS_IDLE}
)

// scheduling returns what gives a task process.scheduler and process.ioPriority. Like what sched_setattr(2) sets, the host does not see it.
func scheduling(p *specs.Process) (apply func(*kernel.Task), err error) {
	s, io := cmp.Or(p.Scheduler, &specs.Scheduler{Policy: specs.SchedOther}), cmp.Or(p.IOPriority, &specs.LinuxIOPriority{})
	policy, class := int32(slices.Index(policies, s.Policy)), int32(slices.Index(ioClasses, io.Class))
	realTime := policy == linux.SCHED_FIFO || policy == linux.SCHED_RR
	reset := slices.Equal(s.Flags, []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork})
	switch {
	case policy < 0 || s.Runtime != 0 || s.Deadline != 0 || s.Period != 0:
		err = fmt.Errorf("process.scheduler.policy: %q: only SCHED_OTHER, FIFO, RR, BATCH and IDLE are supported, without runtime, deadline and period", s.Policy)
	case len(s.Flags) > 0 && !reset:
		err = fmt.Errorf("process.scheduler.flags: %q: only %s is supported", s.Flags, specs.SchedFlagResetOnFork)
	case s.Nice < -20 || s.Nice > 19:
		err = fmt.Errorf("process.scheduler.nice: %d is not between -20 and 19", s.Nice)
	case s.Priority < 0 || s.Priority > 99 || realTime != (s.Priority != 0):
		err = fmt.Errorf("process.scheduler.priority: %d; SCHED_FIFO and SCHED_RR have 1 to 99, other policies 0", s.Priority)
	case class < 0 || class == 0 && p.IOPriority != nil || io.Priority < 0 || io.Priority > 7:
		err = fmt.Errorf("process.ioPriority: class %q is none of IOPRIO_CLASS_RT, BE and IDLE, or priority %d not between 0 and 7", io.Class, io.Priority)
	}
	if reset {
		policy |= linux.SCHED_RESET_ON_FORK
	}
	return func(t *kernel.Task) {
		t.SetSchedPolicy(policy, s.Priority)
		if !realTime {
			t.SetNice(s.Nice)
		}
		t.SetIOPrio(class<<linux.IOPRIO_CLASS_SHIFT | int32(io.Priority))
	}, err
}
