package kernel

import "golang.org/x/sys/unix"

// CPUSet is a set of virtual CPUs, for affinity masks.
type CPUSet [16]uint64

// maxCPUs bounds the number of CPUs that an affinity mask can name.
const maxCPUs = len(CPUSet{}) * 64

// Has reports whether s holds cpu.
func (s *CPUSet) Has(cpu int) bool { return cpu < maxCPUs && s[cpu/64]>>(cpu%64)&1 != 0 }

// Add adds cpu.
func (s *CPUSet) Add(cpu int) { s[cpu/64] |= 1 << (cpu % 64) }

// And is what s and o have in common.
func (s CPUSet) And(o *CPUSet) CPUSet {
	for i := range s {
		s[i] &= o[i]
	}
	return s
}

// Count is the number of CPUs in s below n.
func (s *CPUSet) Count(n int) (c int) {
	for i := range min(n, maxCPUs) {
		if s.Has(i) {
			c++
		}
	}
	return c
}

// AllCPUs is the set of the CPUs that tasks may be on.
func (k *Kernel) AllCPUs() *CPUSet {
	var s CPUSet
	only := k.cpuset.Load()
	for i := range min(k.numCPUs, maxCPUs) {
		if only == nil || only.Has(i) {
			s.Add(i)
		}
	}
	return &s
}

// Confine moves all tasks, and those to come, to the CPUs of s (cpuset(7)). A set of which the kernel has none changes nothing.
func (k *Kernel) Confine(s *CPUSet) {
	if s.Count(k.numCPUs) == 0 {
		return
	}
	k.cpuset.Store(s)
	for _, tg := range k.ThreadGroups() {
		for _, t := range tg.Tasks() {
			_ = t.SetAffinity(*s) // one of s is there
		}
	}
}

// Affinity is sched_getaffinity(2).
func (t *Task) Affinity() CPUSet { return *t.attrs.affinity.Load() }

// SetAffinity is sched_setaffinity(2): EINVAL if no CPU remains. The host schedules as it likes; the mask is what the guest sees.
func (t *Task) SetAffinity(s CPUSet) error {
	if s = s.And(t.k.AllCPUs()); s == (CPUSet{}) {
		return unix.EINVAL
	}
	t.attrs.affinity.Store(&s)
	t.RunAtBoundary((*Task).publishIdentity)
	return nil
}

// CPU is the virtual CPU that t says it runs on: one of its affinity mask, spread by thread.
func (t *Task) CPU() uint32 {
	s := t.attrs.affinity.Load()
	n := int(t.TID()) % max(1, s.Count(t.k.numCPUs))
	for i := range t.k.numCPUs {
		if s.Has(i) {
			if n == 0 {
				return uint32(i)
			}
			n--
		}
	}
	return 0
}

// Nice, policy and priority of a task.
func (t *Task) Nice() int32 { return t.attrs.nice.Load() }

// SetNice sets the nice value, cut to [-20, 19].
func (t *Task) SetNice(n int32) { t.attrs.nice.Store(max(-20, min(19, n))) }

// SchedPolicy is the SCHED_* policy, with SCHED_RESET_ON_FORK, and the real-time priority.
func (t *Task) SchedPolicy() (policy, priority int32) {
	return t.attrs.policy.Load(), t.attrs.rtPriority.Load()
}

// SetSchedPolicy records a policy; the host does not see it.
func (t *Task) SetSchedPolicy(policy, priority int32) {
	t.attrs.policy.Store(policy)
	t.attrs.rtPriority.Store(priority)
}

// IOPrio is ioprio_get(2)'s value.
func (t *Task) IOPrio() int32 { return t.attrs.ioprio.Load() }

// SetIOPrio records an I/O priority.
func (t *Task) SetIOPrio(p int32) { t.attrs.ioprio.Store(p) }
