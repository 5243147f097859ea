package workloads

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// footprint is what a sandbox's processes hold of the host: sentry, gofer and stubs.
type footprint struct {
	processes, threads, fds int
	anon, file              int64 // bytes: anonymous memory of the processes, and the memory file
	cpu                     time.Duration
}

func (f footprint) String() string {
	return fmt.Sprintf("%d processes, %d threads, %d descriptors, %d MiB, %d MiB of memory file", f.processes, f.threads, f.fds, f.anon>>20, f.file>>20)
}

// measure adds up what the processes below pid hold.
func measure(pid int) (f footprint) {
	files := map[uint64]bool{}
	all := children(pid)
	for _, p := range all {
		f.processes++
		dir := fmt.Sprintf("/proc/%d/", p)
		stat, err := os.ReadFile(dir + "stat")
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		fields := strings.Fields(rest)
		threads, _ := strconv.Atoi(fields[17])
		f.threads += threads
		for _, i := range []int{11, 12} { // utime and stime, in clock ticks: 100 Hz to user space, whatever the kernel's
			n, _ := strconv.Atoi(fields[i])
			f.cpu += time.Duration(n) * 10 * time.Millisecond
		}
		status, _ := os.ReadFile(dir + "status")
		for l := range strings.Lines(string(status)) {
			if v, ok := strings.CutPrefix(l, "RssAnon:"); ok {
				n, _ := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
				f.anon += n << 10
			}
		}
		if parent, _ := strconv.Atoi(fields[1]); slices.Contains(all, parent) {
			continue // a stub: its descriptors are the sentry's, in one table
		}
		fds, _ := filepath.Glob(dir + "fd/*")
		f.fds += len(fds)
		for _, fd := range fds {
			var st syscall.Stat_t
			if to, _ := os.Readlink(fd); strings.HasPrefix(to, "/memfd:") && syscall.Stat(fd, &st) == nil && !files[st.Ino] {
				files[st.Ino] = true
				f.file += st.Blocks * 512
			}
		}
	}
	return f
}

// atRest measures until the number of processes and threads has not changed for a second.
func atRest(pid int) footprint {
	f, same := measure(pid), 0
	for range 100 {
		time.Sleep(100 * time.Millisecond)
		g := measure(pid)
		if same++; g.processes != f.processes || g.threads != f.threads {
			same = 0
		}
		if f = g; same == 10 {
			break
		}
	}
	return f
}

// grown wants b to hold no more than a, but for what pools and caches may keep: the gofer holds descriptors of up to cached files, the Go runtime all OS threads that were ever
// busy at once, and a used stub has up to 8 guest threads ready.
func grown(t *testing.T, what string, cached int, a, b footprint) {
	t.Helper()
	t.Logf("%s: %v; before: %v", what, b, a)
	if b.processes > a.processes+4 || b.threads > a.threads+64 || b.fds > a.fds+16+cached || b.anon > a.anon+64<<20 || b.file > a.file+64<<20 {
		t.Errorf("%s holds %v; before: %v", what, b, a)
	}
}
