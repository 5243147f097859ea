package oci

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestIdleMemory: what a container that sleeps takes of the host in all its processes beside its program's text, which is what the host's page cache happens to
// have in one piece (1 MB and more), once what starting it took has been given back.
func TestIdleMemory(t *testing.T) {
	r := newRuntime(t, "sleep", "1000")
	r.write()
	r.ok("run", "--detach", "--bundle", r.bundle, "a")
	total := 0
	defer func() { t.Logf("PSS %d kB", total) }()
	eventually(t, "a sleeping container takes less than 9 MiB", func() bool {
		groups, _ := filepath.Glob("/sys/fs/cgroup/*" + r.spec.Linux.CgroupsPath + "/cgroup.procs")
		if v2 := "/sys/fs/cgroup" + r.spec.Linux.CgroupsPath + "/cgroup.procs"; len(groups) == 0 {
			groups = []string{v2}
		}
		procs, err := os.ReadFile(groups[0])
		pids := strings.Fields(string(procs))
		if err != nil || len(pids) < 3 {
			t.Fatalf("%s: processes %q, %v; want sentry, gofer and a stub at least", groups[0], pids, err)
		}
		total = 0
		for _, p := range pids {
			b, _ := os.ReadFile("/proc/" + p + "/smaps")
			program := false
			for l := range strings.Lines(string(b)) {
				var kb int
				if head, _, _ := strings.Cut(l, " "); strings.Contains(head, "-") {
					program = strings.HasSuffix(l, "/busybox\n")
				} else if n, _ := fmt.Sscanf(l, "Pss: %d kB", &kb); n == 1 && !program {
					total += kb
				}
			}
		}
		return total > 0 && total < 9<<10
	})
}

// TestPromised: more memory than the limit may be asked for, as on Linux, where a container's limit is about what is used; who uses it loses a process.
func TestPromised(t *testing.T) {
	r := newRuntime(t)
	r.spec.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20))}}
	r.sh("busybox dd if=/dev/zero of=/dev/null bs=200M count=0 2>/dev/null; echo $?; busybox dd if=/dev/zero of=/dev/null bs=200M count=1 2>/dev/null; echo $?")
	r.write()
	if out := r.ok("run", "-b", r.bundle, "a"); out != "0\n137\n" {
		t.Errorf("%q", out)
	}
}

// TestSeenMemory: what a container sees of its memory is what the host counts, with the pages of moat as the kernel's and those of the host's cache, within 2 MiB.
func TestSeenMemory(t *testing.T) {
	r := newRuntime(t, "sh", "-c", "busybox dd if=/dev/zero of=/dev/shm/x bs=1M count=20 2>/dev/null; exec busybox sleep 1000")
	r.spec.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(100 << 20))}}
	r.write()
	r.ok("run", "--detach", "--bundle", r.bundle, "a")
	eventually(t, "memory seen inside and outside agrees", func() bool {
		var seen, peak, anon, file, kernel int64
		out := r.ok("exec", "a", "sh", "-c", "cd /sys/fs/cgroup; busybox cat memory.current memory.peak; busybox head -n3 memory.stat")
		if _, err := fmt.Sscanf(out, "%d\n%d\nanon %d\nfile %d\nkernel %d", &seen, &peak, &anon, &file, &kernel); err != nil {
			t.Fatalf("%q: %v", out, err)
		}
		var event struct {
			Data struct {
				Memory struct{ Usage struct{ Usage int64 } }
			}
		}
		if err := json.Unmarshal([]byte(r.ok("events", "--stats", "a")), &event); err != nil {
			t.Fatal(err)
		}
		host := event.Data.Memory.Usage.Usage
		t.Logf("inside %d (peak %d), outside %d; %d, %d, %d", seen, peak, host, anon, file, kernel)
		return max(seen-host, host-seen) < 2<<20 && seen > 24<<20 && peak >= seen && kernel > 1<<20 && anon+file+kernel == seen && anon >= 20<<20
	})
}
