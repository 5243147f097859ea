package oci

import (
	goruntime "runtime"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestCPUs: a container sees as its affinity the CPUs that it is confined to, and a process of exec those of process.execCPUAffinity.
func TestCPUs(t *testing.T) {
	r := newRuntime(t, "sleep", "100")
	if goruntime.NumCPU() < 2 {
		t.Skip("needs two CPUs")
	}
	const list = "Cpus_allowed_list:\t"
	r.spec.Linux.Resources.CPU = &specs.LinuxCPU{Cpus: "0"}
	r.spec.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "1", Final: "1"}
	r.write()
	r.ok("run", "-d", "-b", r.bundle, "c")
	allowed := func(pid string) string {
		t.Helper()
		return strings.TrimSpace(strings.TrimPrefix(r.ok("exec", "c", "grep", list, "/proc/"+pid+"/status"), list))
	}
	r.fails(255, "process.execCPUAffinity.final: the container has none of the CPUs 1", "exec", "c", "true")
	r.ok("update", "--cpuset-cpus", "0-1", "c")
	for pid, want := range map[string]string{"1": "0-1", "self": "1"} {
		if got := allowed(pid); got != want {
			t.Errorf("after update the CPUs of process %s are %s, not %s", pid, got, want)
		}
	}
	r.ok("delete", "-f", "c")

	r.spec.Process.Args = []string{"grep", list, "/proc/self/status"}
	r.run(list+"0\n", 0)
	// Those of who makes the container are not its own; what config.json has for exec is not for the first process.
	r.spec.Linux.Resources.CPU = nil
	r.write()
	if res := run(t, nil, "taskset", "-c", "1", moat, "--root", r.root, "run", "-b", r.bundle, "c"); !strings.HasPrefix(res.out, list+"0-") {
		t.Errorf("run by a process on one CPU: %v", res)
	}
	for _, bad := range []string{"1-0", "a", "0-", "1024"} {
		r.spec.Process.ExecCPUAffinity.Final = bad
		r.write()
		r.fails(1, `process.execCPUAffinity: "`+bad+`" is not a list of CPUs like 0-2,7`, "run", "-b", r.bundle, "c")
	}
}
