package oci

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestJoined: a container that names the namespaces of another one's process, as engines do for container:ID, shares them.
func TestJoined(t *testing.T) {
	r := newRuntime(t)
	r.spec.Linux.CgroupsPath = "" // each has its own
	t.Cleanup(func() { r.spec.Linux.CgroupsPath = "" })
	caps := []string{"CAP_SYS_ADMIN"}
	r.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Permitted: caps, Effective: caps}
	r.sh("hostname x; exec sleep 1001")
	r.write()
	r.ok("run", "-d", "-b", r.bundle, "x")
	pid := r.state("x").Pid
	own := r.spec.Linux.Namespaces
	join := func(kinds ...specs.LinuxNamespaceType) {
		r.spec.Linux.Namespaces = nil
		for _, n := range own {
			for _, k := range kinds {
				if n.Type == k {
					n.Path = fmt.Sprintf("/proc/%d/ns/%s", pid, map[specs.LinuxNamespaceType]string{specs.PIDNamespace: "pid", specs.NetworkNamespace: "net",
						specs.UTSNamespace: "uts", specs.IPCNamespace: "ipc"}[k])
				}
			}
			r.spec.Linux.Namespaces = append(r.spec.Linux.Namespaces, n)
		}
		r.write()
	}
	// Its PIDs and its name; and it ends without the other.
	r.spec.Hostname = ""
	r.sh("cat /proc/1/cmdline | tr '\\0' ' '; hostname; exit 3")
	join(specs.PIDNamespace, specs.UTSNamespace, specs.NetworkNamespace)
	if res := r.moat("run", "-b", r.bundle, "y"); res.out != "sleep 1001 x\n" || res.code != 3 {
		t.Errorf("joined: %v", res)
	}
	// Another's, of one that has joined itself, and only that.
	r.sh("sleep 1002")
	join(specs.PIDNamespace)
	r.ok("run", "-d", "-b", r.bundle, "y")
	pid = r.state("y").Pid
	r.sh("ps; hostname z; hostname")
	join(specs.PIDNamespace)
	if res := r.moat("run", "-b", r.bundle, "z"); !strings.Contains(res.out, "sleep 1001") || !strings.Contains(res.out, "sleep 1002") || !strings.HasSuffix(res.out, "\nz\n") {
		t.Errorf("joined by way of another: %v", res)
	}
	if out := r.ok("exec", "x", "hostname"); out != "x\n" {
		t.Errorf("x is called %q now", out)
	}
	// Each can be paused by itself.
	r.ok("pause", "x")
	if out := r.ok("exec", "y", "echo", "on"); out != "on\n" || r.state("x").Status != "paused" {
		t.Errorf("%q, x is %v", out, r.state("x").Status)
	}
	r.ok("resume", "x")
	// A network that hooks would make cannot be.
	r.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/true"}}}
	r.write()
	r.fails(1, "is in its sandbox, where hooks cannot give it a network: join that one's too", "run", "-b", r.bundle, "z")
	r.spec.Hooks = nil
	// It ends with the one that it has joined.
	r.ok("delete", "-f", "x")
	if st := r.await("y", "stopped"); st.ExitStatus == nil || *st.ExitStatus != 137 {
		t.Errorf("y: %+v", st)
	}
	r.fails(1, fmt.Sprintf("/proc/%d/ns/pid", pid), "run", "-b", r.bundle, "z")

	// The host's name is that of who has no name of its own.
	r.spec.Linux.Namespaces = own[:0:0]
	for _, n := range own {
		if n.Type != specs.UTSNamespace {
			r.spec.Linux.Namespaces = append(r.spec.Linux.Namespaces, n)
		}
	}
	r.sh("hostname")
	r.write()
	if name, _ := os.Hostname(); r.moat("run", "-b", r.bundle, "h").out != name+"\n" {
		t.Errorf("the container is not called %s", name)
	}
	r.fails(1, "moat does not save the state of a container yet", "checkpoint", "y")
}
