package boot

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"gvisor.dev/gvisor/pkg/abi/linux"

	"moat/sentry/kernel"
)

// By Linux's numbers: SCHED_ISO was never there.
var (
	policies  = []specs.LinuxSchedulerPolicy{specs.SchedOther, specs.SchedFIFO, specs.SchedRR, specs.SchedBatch, "-", specs.SchedIdle}
	ioClasses = []specs.IOPriorityClass{"", specs.IOPRIO_CLASS_RT, specs.IOPRIO_CLASS_BE, specs.IOPRIO_CLASS_IDLE}
)

// cpuList is the set of a list of CPUs like "0-2,7" (cpuset(7)).
func cpuList(list string) (s kernel.CPUSet, err error) {
	for part := range strings.FieldsFuncSeq(list, func(r rune) bool { return r == ',' }) {
		low, high, ok := strings.Cut(part, "-")
		if !ok {
			high = low
		}
		// 10 bits are what a CPUSet has.
		from, e1 := strconv.ParseUint(low, 10, 10)
		to, e2 := strconv.ParseUint(high, 10, 10)
		if e1 != nil || e2 != nil || from > to {
			return s, fmt.Errorf("%q is not a list of CPUs like 0-2,7", list)
		}
		for ; from <= to; from++ {
			s.Add(int(from))
		}
	}
	return s, nil
}

// scheduling returns what gives a task process.scheduler, process.ioPriority and, if it is exec's, execCPUAffinity. Like what sched_setattr(2) sets, the host does
// not see it.
func scheduling(p *specs.Process, all *kernel.CPUSet, exec bool) (apply func(*kernel.Task), err error) {
	affinity := cmp.Or(p.ExecCPUAffinity, &specs.CPUAffinity{})
	// The initial CPUs are for a process of the runtime's that is to become the container's: moat has none.
	_, err = cpuList(affinity.Initial)
	cpus, e := cpuList(affinity.Final)
	if err = cmp.Or(err, e); err != nil {
		return nil, fmt.Errorf("process.execCPUAffinity: %w", err)
	}
	exec = exec && affinity.Final != ""
	s, io := cmp.Or(p.Scheduler, &specs.Scheduler{Policy: specs.SchedOther}), cmp.Or(p.IOPriority, &specs.LinuxIOPriority{})
	policy, class := int32(slices.Index(policies, s.Policy)), int32(slices.Index(ioClasses, io.Class))
	realTime := policy == linux.SCHED_FIFO || policy == linux.SCHED_RR
	reset := slices.Equal(s.Flags, []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork})
	switch {
	case exec && cpus.And(all) == (kernel.CPUSet{}):
		err = fmt.Errorf("process.execCPUAffinity.final: the container has none of the CPUs %s", affinity.Final)
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
		if exec {
			_ = t.SetAffinity(cpus) // there is one of them
		}
	}, err
}
