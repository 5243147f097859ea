package container

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// HostPIDs are the processes of the host that hold the container's processes' memory and run their code, by the container's number: what host tools
// like ps(1) can be asked about.
func (c *Container) HostPIDs() (map[int32]int, error) {
	l, err := c.Processes()
	if err != nil {
		return nil, err
	}
	inner := c.stubs()
	pids := make(map[int32]int, len(l))
	for _, p := range l {
		if h := inner[p.Host]; p.Host != 0 && h != 0 {
			pids[p.PID] = h
		}
	}
	return pids, nil
}

// stubs are the sentry's children, by their number in the sentry's own PID namespace.
func (c *Container) stubs() map[int]int {
	m := make(map[int]int)
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", c.sentryPID()))
	for _, t := range tasks {
		b, err := os.ReadFile(t)
		if err != nil {
			continue
		}
		for _, f := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil {
				m[innerPID(pid)] = pid
			}
		}
	}
	return m
}

// innerPID is the last number of NSpid in proc_pid_status(5).
func innerPID(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for l := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(l, "NSpid:"); ok {
			f := strings.Fields(v)
			if len(f) == 0 {
				return 0
			}
			n, _ := strconv.Atoi(f[len(f)-1])
			return n
		}
	}
	return 0
}
