package kernel

// seccompFilter is a task's chain of filters, newest first.
type seccompFilter struct {
	prev *seccompFilter
}

func (t *Task) checkSeccomp(nr uintptr, a *Args) bool { return true }
