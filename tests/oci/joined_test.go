package oci

import (
	"fmt"
	"os"
	"os/exec"
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
	eventually(t, "x sleeps", func() bool { return strings.HasPrefix(r.ok("exec", "x", "cat", "/proc/1/cmdline"), "sleep") })
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
	// Namespaces of two sandboxes do not go together.
	r.spec.Hostname = "h"
	r.sh("sleep 1003")
	join()
	r.ok("run", "-d", "-b", r.bundle, "x")
	r.ok("run", "-d", "-b", r.bundle, "w")
	pid = r.state("x").Pid
	join(specs.PIDNamespace)
	for i, n := range r.spec.Linux.Namespaces {
		if n.Type == specs.NetworkNamespace {
			r.spec.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/net", r.state("w").Pid)
		}
	}
	r.write()
	r.fails(1, "which is in another sandbox than", "run", "-b", r.bundle, "z")
	r.fails(1, "moat does not save the state of a container yet", "checkpoint", "y")
}

// TestJoinedNetwork: a container with another one's processes has a network of its own, with the links that its hooks make, as long as it lives.
func TestJoinedNetwork(t *testing.T) {
	r := newRuntime(t)
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("ip is not installed (make deps)")
	}
	r.spec.Linux.CgroupsPath = ""
	t.Cleanup(func() { r.spec.Linux.CgroupsPath = "" })
	own := r.spec.Linux.Namespaces
	// link has a hook make an interface with an address, by which nobody is reached.
	link := func(addr string) {
		r.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Env: []string{"PATH=" + os.Getenv("PATH")}, Args: []string{"sh", "-c", `
			in="nsenter -t $(sed -n 's/.*"pid": *\([0-9]*\).*/\1/p') -n ip"
			$in link add eth0 type veth peer name far && $in addr add ` + addr + `/24 dev eth0 && $in link set eth0 up && $in route add default via 10.77.0.1`}}}}
	}
	join := func(pid int, kinds string) {
		r.spec.Linux.Namespaces = nil
		for _, n := range own {
			if strings.Contains(kinds, string(n.Type)) {
				n.Path = fmt.Sprintf("/proc/%d/ns/%s", pid, map[specs.LinuxNamespaceType]string{specs.PIDNamespace: "pid", specs.NetworkNamespace: "net", specs.IPCNamespace: "ipc"}[n.Type])
			}
			r.spec.Linux.Namespaces = append(r.spec.Linux.Namespaces, n)
		}
		r.write()
	}
	const look = "cat /proc/1/cmdline | tr '\\0' ' '; echo $(ls /sys/class/net); busybox ip -o -4 addr show dev eth0 | busybox awk '{print $4}'; busybox ip route | grep default; busybox ip link show lo | grep -q LOWER_UP && echo lo"
	r.sh("exec sleep 1001")
	link("10.77.0.2")
	join(0, "")
	r.ok("run", "-d", "-b", r.bundle, "x")
	x := r.state("x").Pid
	eventually(t, "x sleeps", func() bool { return strings.HasPrefix(r.ok("exec", "x", "cat", "/proc/1/cmdline"), "sleep") })
	fds := func() int { l, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", x)); return len(l) }
	n := 0
	for i := range 4 {
		r.sh(look)
		link(fmt.Sprintf("10.77.0.%d", i+3))
		join(x, "pid")
		if out, want := r.ok("run", "-b", r.bundle, "y"), fmt.Sprintf("sleep 1001 eth0 lo\n10.77.0.%d/24\ndefault via 10.77.0.1 dev eth0 \nlo\n", i+3); out != want {
			t.Errorf("with x's processes: %q, not %q", out, want)
		}
		if i == 0 {
			n = fds()
		}
	}
	eventually(t, fmt.Sprintf("the sentry has %d descriptors again", n), func() bool { return fds() <= n })
	if out := r.ok("exec", "x", "sh", "-c", look); out != "sleep 1001 eth0 lo\n10.77.0.2/24\ndefault via 10.77.0.1 dev eth0 \nlo\n" {
		t.Errorf("x: %q", out)
	}
	// Its network is shared in turn, by the process that stands for it.
	r.sh("exec sleep 1002")
	link("10.77.0.9")
	join(x, "pid ipc")
	r.ok("run", "-d", "-b", r.bundle, "y")
	r.spec.Hooks = nil
	r.sh(look)
	join(r.state("y").Pid, "network")
	if out := r.ok("run", "-b", r.bundle, "z"); !strings.Contains(out, "\n10.77.0.9/24\n") || strings.Contains(out, "sleep 1001") {
		t.Errorf("with y's network: %q", out)
	}
	// Without hooks it has lo alone, which is up.
	r.sh("echo $(ls /sys/class/net); busybox ip link show lo | grep -q LOWER_UP && echo lo")
	join(x, "pid")
	if out := r.ok("run", "-b", r.bundle, "z"); out != "lo\nlo\n" {
		t.Errorf("without a link: %q", out)
	}
	// The filter of a sandbox without links is not for them.
	r.sh("sleep 1003")
	join(0, "")
	r.ok("run", "-d", "-b", r.bundle, "w")
	link("10.77.0.2")
	join(r.state("w").Pid, "pid")
	r.fails(1, "has no interfaces but lo, and so may not use any", "run", "-b", r.bundle, "z")
}
