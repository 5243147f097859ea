package container

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"moat/sentry/boot"
)

// applyLinux takes in config.json's linux: what cannot be honoured is an error, what need not be is warned of.
func (o *Options) applyLinux(containers string) error {
	s := o.Spec
	if s.Windows != nil || s.Solaris != nil || s.VM != nil || s.ZOS != nil {
		o.warn("config.json: what is for other systems than Linux is ignored")
	}
	p := s.Process
	if p.ApparmorProfile != "" && p.ApparmorProfile != "unconfined" {
		o.warn("process.apparmorProfile: ignored: the host's kernel does not see the container's processes")
	}
	if p.SelinuxLabel != "" {
		o.warn("process.selinuxLabel: ignored: the host's kernel does not see the container's processes")
	}
	var err error
	if o.sandbox, o.isSandbox, err = podOf(s.Annotations, o.ID); err != nil {
		return err
	}
	l := s.Linux
	if l == nil {
		return nil
	}
	if o.sandbox == "" && !o.isSandbox {
		if o.sandbox, err = joined(containers, l.Namespaces); err != nil {
			return fmt.Errorf("linux.namespaces: %w", err)
		}
	}
	if err := o.applyNamespaces(l.Namespaces); err != nil {
		return err
	}
	switch {
	case l.IntelRdt != nil:
		return fmt.Errorf("linux.intelRdt: not supported")
	case l.Personality != nil && l.Personality.Domain != specs.PerLinux:
		return fmt.Errorf("linux.personality.domain: %q: only %q is supported", l.Personality.Domain, specs.PerLinux)
	case len(l.TimeOffsets) > 0:
		return fmt.Errorf("linux.timeOffsets: not supported")
	case len(l.NetDevices) > 0:
		return fmt.Errorf("linux.netDevices: not supported")
	}
	if err := o.applyMappings(l); err != nil {
		return err
	}
	if l.MountLabel != "" {
		o.warn("linux.mountLabel: ignored")
	}
	for k := range l.Sysctl {
		if !namespaced(k) {
			return fmt.Errorf("linux.sysctl: %q is not in a separate kernel namespace", k)
		}
	}
	prog, err := compileSeccomp(l.Seccomp, o.warn)
	if err != nil {
		return fmt.Errorf("linux.seccomp: %w", err)
	}
	if prog != nil {
		o.Config.First.Seccomp = [][]byte{prog}
	}
	return o.applyResources(l.Resources)
}

// applyMappings: the sentry maps the owners of files. An ordinary user's files all are his own.
func (o *Options) applyMappings(l *specs.Linux) error {
	all := slices.Concat(l.UIDMappings, l.GIDMappings)
	if len(all) > 0 && !slices.ContainsFunc(l.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace }) {
		return errors.New("linux.uidMappings, linux.gidMappings: linux.namespaces has no user namespace")
	}
	if os.Geteuid() == 0 {
		return nil
	}
	if slices.ContainsFunc(all, func(m specs.LinuxIDMapping) bool { return m.Size > 1 || m.ContainerID != 0 }) {
		o.warn("linux.uidMappings, linux.gidMappings: only the caller's own IDs are used on the host")
	}
	l.UIDMappings, l.GIDMappings = nil, nil
	return nil
}

// applyResources gives the sentry the limits that it keeps itself.
func (o *Options) applyResources(r *specs.LinuxResources) error {
	if r == nil {
		return nil
	}
	if m := r.Memory; m != nil && m.Limit != nil && *m.Limit > 0 {
		limit := uint64(*m.Limit)
		if limit < minContainerMemory {
			return fmt.Errorf("linux.resources.memory.limit: %d is too little: a container needs %d", limit, minContainerMemory)
		}
		o.Config.Memory = limit - boot.Overhead(limit)
	}
	// 2 is what Kubernetes gives who asks for nothing.
	if c := r.CPU; c != nil && o.sandbox != "" && (c.Cpus != "" || c.Shares != nil && *c.Shares > 2) {
		o.warn("linux.resources.cpu: shares and cpus of one container of a pod have no effect on its tasks: the pod's have")
	}
	return nil
}

// minContainerMemory is what a sandbox with the smallest program needs.
const minContainerMemory = 12 << 20

// applyNamespaces: a container has namespaces of its own; of the host's, or another's, only a network can be joined. In a pod the sandbox has all that
// are made for the pod, which engines may have pinned to files, and the others share them with it (Container.share).
func (o *Options) applyNamespaces(list []specs.LinuxNamespace) error {
	have := map[specs.LinuxNamespaceType]bool{}
	for i, n := range list {
		known := []specs.LinuxNamespaceType{specs.PIDNamespace, specs.NetworkNamespace, specs.MountNamespace, specs.IPCNamespace, specs.UTSNamespace,
			specs.UserNamespace, specs.CgroupNamespace, specs.TimeNamespace}
		switch {
		case !slices.Contains(known, n.Type):
			return fmt.Errorf("linux.namespaces[%d].type: there is no namespace %q", i, n.Type)
		case have[n.Type]:
			return fmt.Errorf("linux.namespaces[%d].type: %q is there twice", i, n.Type)
		}
		have[n.Type] = true
		if n.Path == "" {
			continue
		}
		if (o.sandbox != "" || o.isSandbox) && slices.Contains(podNamespaces, n.Type) && (o.sandbox != "" || n.Type != specs.NetworkNamespace) {
			continue
		}
		if n.Type != specs.NetworkNamespace {
			return fmt.Errorf("linux.namespaces[%d].path: the %s namespace %s cannot be joined: it is the host kernel's, and a sandbox has a kernel of its own", i, n.Type, n.Path)
		}
		var err error
		if o.netNS, err = openNetNS(n.Path); err != nil {
			return fmt.Errorf("linux.namespaces[%d].path: %w", i, err)
		}
		have[n.Type] = o.netNS != nil
	}
	o.HostNet = !have[specs.NetworkNamespace] && o.sandbox == ""
	if !have[specs.UTSNamespace] && o.sandbox == "" && o.Spec.Hostname == "" {
		o.Spec.Hostname, _ = os.Hostname() // it would be the host's
	}
	with := "the container has its own"
	if o.sandbox != "" {
		with = "the pod's is"
	}
	for _, t := range []specs.LinuxNamespaceType{specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace} {
		if !have[t] {
			o.warn("linux.namespaces: the host's %s namespace cannot be shared: %s", t, with)
		}
	}
	return nil
}

// openNetNS opens a network namespace; nil: it is the caller's own, as Docker names the host's.
func openNetNS(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	var theirs, mine unix.Stat_t
	if unix.Fstat(int(f.Fd()), &theirs) == nil && unix.Stat("/proc/self/ns/net", &mine) == nil && theirs.Ino == mine.Ino && theirs.Dev == mine.Dev {
		f.Close()
		return nil, nil
	}
	return f, nil
}

// namespaced reports whether a sysctl is a container's own (runc's list).
func namespaced(name string) bool {
	name = strings.ReplaceAll(name, "/", ".")
	switch name {
	case "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced",
		"kernel.domainname", "kernel.hostname":
		return true
	}
	return strings.HasPrefix(name, "net.") || strings.HasPrefix(name, "fs.mqueue.")
}
