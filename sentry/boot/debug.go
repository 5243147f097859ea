package boot

import (
	"bytes"
	"fmt"
	"runtime/pprof"
	"slices"
	"time"

	"moat/syscalls"
)

// TaskInfo is one task of the container, for `moat debug`.
type TaskInfo struct {
	PID, TID    int32
	Name, State string
	// Call is the system call that the task is in, "" if it runs guest code.
	Call string
}

// Tasks lists the container's tasks.
func (c *Session) Tasks(id *string, l *[]TaskInfo) error {
	b, err := c.s.container(*id)
	if err != nil {
		return err
	}
	names := make(map[uint64]string)
	for _, r := range syscalls.Rows() {
		names[uint64(r.Nr)] = r.Name
	}
	ns := b.ns.PIDForChildren
	for _, tg := range b.k.Members(b.cg) {
		for _, t := range tg.Tasks() {
			i := TaskInfo{PID: tg.PIDIn(ns), TID: t.TIDIn(ns), Name: t.Name(), State: t.State().String()}
			if nr, ok := t.WaitsIn(); ok {
				i.Call = names[nr]
			}
			*l = append(*l, i)
		}
	}
	slices.SortFunc(*l, func(a, b TaskInfo) int { return int(a.TID) - int(b.TID) })
	return nil
}

// Strace switches the printing of system calls on or off.
func (c *Session) Strace(on *bool, _ *None) error {
	b, err := c.s.sandbox()
	if err == nil {
		b.k.SetStrace(*on)
	}
	return err
}

// ProfileArgs are Session.Profile's.
type ProfileArgs struct {
	Kind    string
	Seconds float64
}

// longestProfile bounds a CPU profile, in seconds.
const longestProfile = 600

// Profile makes a profile of the sentry for go tool pprof. What the runtime does for most of them (timers, files of /proc, getrusage) is beyond the
// filter, so that they need a sandbox that is Unsafe.
func (c *Session) Profile(a *ProfileArgs, data *[]byte) error {
	b, err := c.s.sandbox()
	if err != nil {
		return err
	}
	p := pprof.Lookup(a.Kind)
	filtered := slices.Contains([]string{"goroutine", "mutex", "block", "threadcreate"}, a.Kind)
	switch {
	case p == nil && a.Kind != "cpu":
		return fmt.Errorf("there is no profile %q", a.Kind)
	case !filtered && !b.first.c.Unsafe:
		return fmt.Errorf("a %s profile makes host calls that the sentry's filter forbids: start the container with --debug-unsafe", a.Kind)
	}
	var out bytes.Buffer
	switch {
	case a.Kind == "cpu":
		if err = pprof.StartCPUProfile(&out); err == nil {
			time.Sleep(time.Duration(min(max(a.Seconds, 0), longestProfile) * float64(time.Second)))
			pprof.StopCPUProfile()
		}
	case b.first.c.Unsafe:
		err = p.WriteTo(&out, 0)
	default:
		// The binary form has the mappings of the process in it, for which a file must be opened.
		err = p.WriteTo(&out, 1)
	}
	*data = out.Bytes()
	return err
}
