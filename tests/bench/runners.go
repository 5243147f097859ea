package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync/atomic"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// runner is one way to run a command.
type runner struct {
	name string
	// command makes the command that runs argv. The host's files are there, what is written to them stays inside;
	// the workspace's shared directory is a bind mount, written through to the host.
	command func(argv ...string) *exec.Cmd
	// inside makes the command that runs argv in a container in the network namespace of that name, with its interfaces. What argv starts ends with it.
	inside func(netns string, argv ...string) *exec.Cmd
}

const (
	native = "native"
	runsc  = "runsc systrap"
)

// addRunners makes the runners, native first.
func (b *bench) addRunners(moat, runscBin, runcBin string, platforms []string) {
	shared := filepath.Join(b.work, "shared")
	prefix := func(p ...string) func(argv ...string) *exec.Cmd {
		return func(argv ...string) *exec.Cmd { return exec.Command(p[0], append(p[1:len(p):len(p)], argv...)...) }
	}
	b.runners = []runner{{native, func(argv ...string) *exec.Cmd { return exec.Command(argv[0], argv[1:]...) }, func(netns string, argv ...string) *exec.Cmd {
		return prefix("ip", "netns", "exec", netns, "unshare", "--pid", "--fork", "--kill-child")(argv...)
	}}}
	b.overlay()
	if runcBin != "" {
		oci := b.oci(runcBin)
		b.runners = append(b.runners, runner{"runc", func(argv ...string) *exec.Cmd { return oci("", argv...) }, oci})
	}
	if runscBin != "" {
		p := []string{runscBin, "--root", filepath.Join(b.work, "runsc"), "--platform=systrap", "--ignore-cgroups"}
		b.runners = append(b.runners, runner{runsc, prefix(append(p, "--network=none", "do", "--volume", shared, "--")...), b.oci(append(p, "--network=sandbox")...)})
	}
	abs, err := filepath.Abs(moat)
	check(err)
	for _, p := range platforms {
		b.runners = append(b.runners, runner{"moat " + p, prefix(abs, "do", "--platform="+p, "--volume", shared+":"+shared, "--"), b.oci(abs, "--platform="+p)})
	}
}

func (b *bench) root(sub string) string { return filepath.Join(b.work, "oci", sub) }

// overlay makes the root of OCI containers: an overlay of the host's, as the sandboxes have it.
func (b *bench) overlay() {
	for _, d := range []string{"rootfs", "upper", "work", "root"} {
		check(os.MkdirAll(b.root(d), 0o755))
	}
	check(unix.Mount("overlay", b.root("rootfs"), "overlay", 0, fmt.Sprintf("lowerdir=/,upperdir=%s,workdir=%s", b.root("upper"), b.root("work"))))
}

var containers atomic.Int32

// oci makes the commands of an OCI runtime that runs a bundle.
func (b *bench) oci(p ...string) func(netns string, argv ...string) *exec.Cmd {
	return func(netns string, argv ...string) *exec.Cmd {
		bundle, err := os.MkdirTemp(b.root(""), "bundle")
		check(err)
		js, err := json.Marshal(b.spec(b.root("rootfs"), netns, argv))
		check(err)
		check(os.WriteFile(filepath.Join(bundle, "config.json"), js, 0o644))
		flags := p[1:len(p):len(p)]
		if !slices.Contains(p, "--root") {
			flags = append(flags, "--root", b.root("root"))
		}
		return exec.Command(p[0], append(flags, "run", "--bundle", bundle, fmt.Sprintf("bench%d-%d", os.Getpid(), containers.Add(1)))...)
	}
}

func (b *bench) spec(root, netns string, argv []string) *specs.Spec {
	caps := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SYS_CHROOT"}
	shared := filepath.Join(b.work, "shared")
	var ns []specs.LinuxNamespace
	for _, t := range []specs.LinuxNamespaceType{specs.PIDNamespace, specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.MountNamespace} {
		n := specs.LinuxNamespace{Type: t}
		if t == specs.NetworkNamespace && netns != "" {
			n.Path = "/run/netns/" + netns
		}
		ns = append(ns, n)
	}
	return &specs.Spec{
		Version: "1.0.2",
		Root:    &specs.Root{Path: root},
		Process: &specs.Process{
			Args: argv, Cwd: "/", Env: []string{"PATH=" + os.Getenv("PATH"), "HOME=/root"},
			Rlimits:      []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: 2 * held, Soft: 2 * held}},
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"mode=1777"}},
			{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=1777"}},
			{Destination: filepath.Join(b.work, "bin"), Type: "bind", Source: filepath.Join(b.work, "bin"), Options: []string{"rbind"}},
			{Destination: shared, Type: "bind", Source: shared, Options: []string{"rbind"}},
		},
		Linux: &specs.Linux{Namespaces: ns},
	}
}
