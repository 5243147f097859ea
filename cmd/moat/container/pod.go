package container

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"moat/sentry/boot"
)

// podAnnotations are the names by which engines say that a container is its pod's sandbox, or whose sandbox it is in.
var podAnnotations = []struct{ kind, sandbox string }{
	{"io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"},   // containerd
	{"io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri-o.SandboxID"}, // CRI-O
}

// groupAnnotation is containerd's for containers that share a shim, by the ID of the one that was first.
const groupAnnotation = "io.containerd.runc.v2.group"

// podOf tells what the annotations of container id say of its pod: whose sandbox it is in, or that it is the sandbox. Of most they say nothing.
func podOf(annotations map[string]string, id string) (sandbox string, isSandbox bool, err error) {
	for _, a := range podAnnotations {
		kind, ok := annotations[a.kind]
		if !ok {
			continue
		}
		sandbox = annotations[a.sandbox]
		switch {
		case kind == "sandbox":
			return "", true, nil
		case kind != "container":
			return "", false, fmt.Errorf("annotations: %s: %q is neither sandbox nor container", a.kind, kind)
		case !validID(sandbox) || sandbox == id:
			return "", false, fmt.Errorf("annotations: %s: %q is not the ID of a sandbox, which a container needs", a.sandbox, sandbox)
		}
		return sandbox, false, nil
	}
	switch group := annotations[groupAnnotation]; {
	case group == "":
		return "", false, nil
	case group == id:
		return "", true, nil
	case !validID(group):
		return "", false, fmt.Errorf("annotations: %s: %q is not the ID of a container", groupAnnotation, group)
	default:
		return group, false, nil
	}
}

// podNamespaces are those that containers of a pod may share.
var podNamespaces = []specs.LinuxNamespaceType{specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.NetworkNamespace}

// inPod reports whether others may be in the same sandbox.
func (c *Container) inPod() bool {
	if c.Sandbox != "" || c.Shared || c.Spec == nil {
		return c.Sandbox != "" || c.Shared
	}
	_, is, _ := podOf(c.Spec.Annotations, c.ID)
	return is
}

// sentryPID is the sentry's number; 0 if it is gone.
func (c *Container) sentryPID() int {
	if c.Sandbox == "" {
		return c.Init.PID
	}
	s, err := Load(filepath.Dir(c.dir), c.Sandbox)
	if err != nil || !s.Init.alive() {
		return 0
	}
	return s.Init.PID
}

// members are the containers in the sandbox of c, but c itself.
func (c *Container) members() ([]*Container, error) {
	all, err := List(filepath.Dir(c.dir))
	return slices.DeleteFunc(all, func(o *Container) bool { return o.Sandbox != c.ID || o.ID == c.ID }), err
}

// podStatus is Status of a container that is alive and whose sentry can be asked, as it is not frozen by the host.
func (c *Container) podStatus() string {
	st, err := c.askStatus()
	switch {
	case errors.Is(err, ErrNotRunning):
		c.Init.gone(time.Second) // it is about to say how it ended
		return Stopped
	case st.Frozen:
		return Paused
	case c.Started || st.Started:
		return Running
	}
	return Created
}

// onHost are the limits for the container's cgroup on the host. That of a container in another's sandbox has its keeper and its gofer in it, and none of its
// memory: the sentry sees to that.
func (c *Container) onHost(r *specs.LinuxResources) *specs.LinuxResources {
	if c.Sandbox == "" || r == nil {
		return r
	}
	n := *r
	n.Memory = nil
	return &n
}

// namespacePath is a namespace as proc_pid_ns(5) names it.
var namespacePath = regexp.MustCompile(`^/proc/([0-9]+)/ns/[a-z]+$`)

// standing is which of all has the process that a path of proc_pid_ns(5) names; nil: none.
func standing(all []*Container, path string) *Container {
	if m := namespacePath.FindStringSubmatch(path); m != nil {
		for _, o := range all {
			if strconv.Itoa(o.Init.PID) == m[1] && o.Init.alive() {
				return o
			}
		}
	}
	return nil
}

// joined is the sandbox of the container below root that has a namespace of list by the process that stands for it, as engines name that of container:ID;
// "" if none has. From then on it is as a pod's.
func joined(root string, list []specs.LinuxNamespace) (string, error) {
	for _, n := range list {
		if !slices.Contains(podNamespaces, n.Type) || !namespacePath.MatchString(n.Path) {
			continue
		}
		all, err := List(root)
		o := standing(all, n.Path)
		if err != nil || o == nil {
			return "", err
		}
		s, err := Lock(root, cmp.Or(o.Sandbox, o.ID))
		if err != nil {
			return "", err
		}
		defer s.Unlock()
		if s.frozen() {
			return "", fmt.Errorf("%s: container %s is paused", n.Path, s.ID)
		}
		s.Shared = true
		return s.ID, s.save()
	}
	return "", nil
}

// share finds whose namespaces the container gets that config.json does not make anew, and where its network is on the host. The sandbox must run.
func (c *Container) share(o *Options) error {
	s, err := Load(filepath.Dir(c.dir), c.Sandbox)
	if err != nil {
		return fmt.Errorf("sandbox %s: %w", c.Sandbox, err)
	}
	if st := s.Status(); st != Created && st != Running && st != Paused {
		return fmt.Errorf("sandbox %s: %s", c.Sandbox, st)
	}
	if s.Sandbox != "" || !s.inPod() {
		return fmt.Errorf("sandbox %s: its annotations do not make it one", c.Sandbox)
	}
	spec := o.Spec
	if spec.Linux == nil {
		spec.Linux = &specs.Linux{}
	}
	o.Config.Share = make(map[specs.LinuxNamespaceType]string)
	for _, kind := range podNamespaces {
		i := slices.IndexFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind })
		switch {
		case i < 0:
			o.Config.Share[kind] = s.ID
		case spec.Linux.Namespaces[i].Path != "":
			path := spec.Linux.Namespaces[i].Path
			id, err := s.owner(kind, path)
			if err == nil && id != "" {
				o.Config.Share[kind] = id
			} else if err == nil {
				o.netNS, err = openNetNS(path)
				o.HostNet = o.netNS == nil
			}
			if err != nil {
				return fmt.Errorf("linux.namespaces[%d].path: %w", i, err)
			}
		}
	}
	switch id := o.Config.Share[specs.NetworkNamespace]; {
	case id == "" && o.Config.Network == "host":
		return fmt.Errorf("linux.namespaces: a network of its own: the sandbox of %s has the host's sockets: share its network", s.ID)
	case id == "" && o.HostNet:
		o.warn("linux.namespaces: the host's network: the host's interfaces are out of the sandbox's reach, and the container has lo alone")
	case id != "" && os.Geteuid() == 0:
		// The keeper is there, too, for hooks and for who asks whose network it is.
		l, err := Load(filepath.Dir(c.dir), id)
		if err == nil {
			o.netNS, err = openNetNS(fmt.Sprintf("/proc/%d/ns/net", l.Init.PID))
		}
		return err
	}
	return nil
}

// owner is the ID of the container in the sandbox s whose namespace a path means: that of the process that stands for it, or the file that the sandbox's own
// config.json names. "" is a network that no container has.
func (s *Container) owner(kind specs.LinuxNamespaceType, path string) (string, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	all, err := List(filepath.Dir(s.dir))
	if err != nil {
		return "", err
	}
	switch o := standing(all, path); {
	case o == nil:
	case cmp.Or(o.Sandbox, o.ID) == s.ID:
		return o.ID, nil
	default:
		return "", fmt.Errorf("the %s namespace %s is that of %s, which is in another sandbox than %s: a kernel of its own", kind, path, o.ID, s.ID)
	}
	var same []string
	if kind == specs.NetworkNamespace {
		same = append(same, fmt.Sprintf("/proc/%d/ns/net", s.Init.PID))
	}
	if s.Spec.Linux != nil {
		for _, n := range s.Spec.Linux.Namespaces {
			if n.Type == kind && n.Path != "" {
				same = append(same, n.Path)
			}
		}
	}
	for _, p := range same {
		if o, err := os.Stat(p); err == nil && os.SameFile(fi, o) {
			return s.ID, nil
		}
	}
	if kind == specs.NetworkNamespace {
		return "", nil
	}
	return "", fmt.Errorf("the %s namespace %s is none of the pod's", kind, path)
}

// launchKeeper starts the processes of a container in another's sandbox: its gofer, and the keeper that will stand for it.
func (c *Container) launchKeeper(o *Options) (*Sandbox, error) {
	return launchWith(o, func(s *Sandbox, sentryGofer *os.File) error {
		o.Config.First.Extra = len(o.Extra)
		k, pipes, err := newKeeper(o.Stdio, o.Config.Console, append([]*os.File{sentryGofer, o.exit}, o.Extra...))
		if err != nil {
			return err
		}
		s.orders, s.dial = pipes, func() (*Client, error) { return c.Dial() }
		start := func() (err error) {
			s.sentry, err = startProcess("keeper", k, "")
			return err
		}
		switch {
		case o.netNS != nil:
			err = inNamespace(o.netNS, start)
		case o.Config.Network == "sandbox" && o.Config.Share[specs.NetworkNamespace] == "":
			k.SysProcAttr.Cloneflags = unix.CLONE_NEWNET
			fallthrough
		default:
			err = start()
		}
		pipes.started()
		return err
	})
}

// add has the keeper add the container to its sandbox.
func (s *Sandbox) add(o *Options) (err error) {
	if err = s.orders.command(&keeperConfig{Root: filepath.Dir(o.dir), ID: o.ID, Add: o.forSentry()}); err == nil {
		s.client, err = s.dial() // for signals and sizes
	}
	return err
}

// endAll ends the container's processes, and in the case of a pod's sandbox those of all that are in it.
func (c *Container) endAll() error {
	all := []*Container{c}
	if c.Sandbox == "" && c.inPod() {
		ms, err := c.members()
		if err != nil {
			return err
		}
		all = append(all, ms...)
	}
	var ps []hostProcess
	for _, o := range all {
		ps = append(ps, o.Init, o.Gofer)
	}
	for _, p := range ps {
		if p.alive() {
			p.signal(unix.SIGKILL)
			if c.frozen() {
				c.thaw()
			}
		}
	}
	for _, p := range ps {
		if !p.gone(longest) {
			return fmt.Errorf("process %d does not end", p.PID)
		}
	}
	if c.Sandbox == "" || c.sentryPID() == 0 {
		return nil
	}
	// The sentry has seen it, too, but may not be done with it.
	cl, err := c.Dial()
	if err != nil {
		return nil // it has just ended
	}
	defer cl.Close()
	select {
	case <-cl.Go("End", c.ID, &boot.None{}):
		return nil // or it does not know the container any more
	case <-time.After(longest):
		return fmt.Errorf("sandbox %s does not let go of the container", c.Sandbox)
	}
}
