package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
}

const (
	native = "native"
	runsc  = "runsc systrap"
)

// addRunners makes the runners, native first.
func (b *bench) addRunners(moat, runscBin, runcBin string, platforms []string) {
	shared := filepath.Join(b.work, "shared")
	b.runners = []runner{{native, func(argv ...string) *exec.Cmd { return exec.Command(argv[0], argv[1:]...) }}}
	prefix := func(name string, p ...string) {
		b.runners = append(b.runners, runner{name, func(argv ...string) *exec.Cmd {
			return exec.Command(p[0], append(p[1:len(p):len(p)], argv...)...)
		}})
	}
	if runcBin != "" {
		b.addRunc(runcBin)
	}
	if runscBin != "" {
		prefix(runsc, runscBin, "--root", filepath.Join(b.work, "runsc"), "--platform=systrap", "--network=none", "--ignore-cgroups",
			"do", "--volume", shared, "--")
	}
	abs, err := filepath.Abs(moat)
	check(err)
	for _, p := range platforms {
		prefix("moat "+p, abs, "do", "--platform="+p, "--volume", shared+":"+shared, "--")
	}
}

// addRunc adds runc with a bundle whose root is an overlay of the host's, as the sandboxes have it.
func (b *bench) addRunc(bin string) {
	dir := filepath.Join(b.work, "runc")
	root := filepath.Join(dir, "rootfs")
	for _, d := range []string{"rootfs", "upper", "work", "root"} {
		check(os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	check(unix.Mount("overlay", root, "overlay", 0, fmt.Sprintf("lowerdir=/,upperdir=%s/upper,workdir=%s/work", dir, dir)))
	var id atomic.Int32
	b.runners = append(b.runners, runner{"runc", func(argv ...string) *exec.Cmd {
		bundle, err := os.MkdirTemp(dir, "bundle")
		check(err)
		js, err := json.Marshal(b.runcSpec(root, argv))
		check(err)
		check(os.WriteFile(filepath.Join(bundle, "config.json"), js, 0o644))
		return exec.Command(bin, "--root", filepath.Join(dir, "root"), "run", "--bundle", bundle, fmt.Sprintf("bench%d-%d", os.Getpid(), id.Add(1)))
	}})
}

func (b *bench) runcSpec(root string, argv []string) *specs.Spec {
	caps := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SYS_CHROOT"}
	shared := filepath.Join(b.work, "shared")
	var ns []specs.LinuxNamespace
	for _, t := range []specs.LinuxNamespaceType{specs.PIDNamespace, specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.MountNamespace} {
		ns = append(ns, specs.LinuxNamespace{Type: t})
	}
	return &specs.Spec{
		Version: "1.0.2",
		Root:    &specs.Root{Path: root},
		Process: &specs.Process{
			Args: argv, Cwd: "/", Env: []string{"PATH=" + os.Getenv("PATH"), "HOME=/root"},
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
