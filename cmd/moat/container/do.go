package container

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"moat/sentry/boot"
)

// Do are the flags of `moat do`.
type Do struct {
	Rootfs, Workdir, User, Hostname string
	Volumes, Env, Args              []string
}

// hostOnly are directories of the host's root that the sandbox has its own of.
var hostOnly = []string{"/proc", "/sys", "/dev", "/run/netns", "/run/docker/netns"}

// callersLimits are limits that a program run from the same shell without moat would have. They are read from the parent: the Go runtime
// has raised this process' own.
func callersLimits() (rs []specs.POSIXRlimit) {
	for name, nr := range map[string]int{"RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_CORE": unix.RLIMIT_CORE,
		"RLIMIT_STACK": unix.RLIMIT_STACK, "RLIMIT_FSIZE": unix.RLIMIT_FSIZE} {
		var l unix.Rlimit
		if unix.Prlimit(os.Getppid(), nr, nil, &l) == nil {
			rs = append(rs, specs.POSIXRlimit{Type: name, Soft: l.Cur, Hard: l.Max})
		}
	}
	return rs
}

// Options turns the flags into a container.
func (d *Do) Options() (*Options, error) {
	o := &Options{HostNet: true}
	root, err := d.root()
	if err != nil {
		return nil, err
	}
	p := &specs.Process{Args: d.Args, Cwd: d.Workdir, Rlimits: callersLimits()}
	hostname := d.Hostname
	onHost := root == "/"
	if onHost {
		p.Env = os.Environ()
		if hostname == "" {
			hostname, _ = os.Hostname()
		}
	} else {
		p.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}
		if t := os.Getenv("TERM"); t != "" {
			p.Env = append(p.Env, "TERM="+t)
		}
	}
	if d.User != "" && !onHost {
		p.Env = slices.DeleteFunc(p.Env, func(e string) bool { return strings.HasPrefix(e, "HOME=") })
	}
	if p.Env, err = setEnv(p.Env, d.Env); err != nil {
		return nil, err
	}
	if p.Cwd == "" {
		p.Cwd = "/"
		if wd, err := os.Getwd(); err == nil && onHost {
			p.Cwd = wd
		}
	}
	o.Config = boot.Config{Plain: true, First: boot.Process{Spec: p, User: d.User}}
	o.Spec = &specs.Spec{Version: specs.Version, Process: p, Root: &specs.Root{Path: root}, Hostname: hostname, Mounts: ownMounts}
	if err := o.addTree(root, "/", nil, hostOnly, tree{overlay: true, readOnly: true}); err != nil {
		return nil, fmt.Errorf("--rootfs: %w", err)
	}
	for _, v := range d.Volumes {
		if err := o.addVolume(v); err != nil {
			return nil, fmt.Errorf("--volume %s: %w", v, err)
		}
	}
	return o, nil
}

// ownMounts are the file systems that the sandbox has of its own.
var ownMounts = []specs.Mount{
	{Destination: "/proc", Type: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
	{Destination: "/sys", Type: "sysfs", Options: []string{"nosuid", "noexec", "nodev"}},
	{Destination: "/sys/fs/cgroup", Type: "cgroup2", Options: []string{"nosuid", "noexec", "nodev"}},
	{Destination: "/dev", Type: "devtmpfs", Options: []string{"nosuid", "mode=755"}},
	{Destination: "/dev/pts", Type: "devpts", Options: []string{"nosuid", "noexec", "ptmxmode=0666", "mode=0620", "gid=5"}},
	{Destination: "/dev/shm", Type: "tmpfs", Options: []string{"nosuid", "nodev", "mode=1777"}},
	{Destination: "/dev/mqueue", Type: "mqueue", Options: []string{"nosuid", "nodev", "noexec"}},
}

func (d *Do) root() (string, error) {
	if d.Rootfs == "" {
		return "/", nil
	}
	root, err := realDir(d.Rootfs)
	if err != nil {
		return "", fmt.Errorf("--rootfs: %w", err)
	}
	return root, nil
}

// realDir is a directory as an absolute path without symlinks.
func realDir(p string) (string, error) {
	p, err := filepath.Abs(p)
	if err == nil {
		p, err = filepath.EvalSymlinks(p)
	}
	if err != nil {
		return "", err
	}
	st, err := os.Stat(p)
	if err == nil && !st.IsDir() {
		err = fmt.Errorf("%s is not a directory", p)
	}
	return p, err
}

// setEnv adds NAME=VALUE, or NAME from the caller's environment, to env.
func setEnv(env, add []string) ([]string, error) {
	for _, e := range add {
		name, _, ok := strings.Cut(e, "=")
		if name == "" {
			return nil, fmt.Errorf("--env %s: there is no name", e)
		}
		if !ok {
			v, set := os.LookupEnv(name)
			if !set {
				continue
			}
			e = name + "=" + v
		}
		env = slices.DeleteFunc(env, func(o string) bool { return strings.HasPrefix(o, name+"=") })
		env = append(env, e)
	}
	return env, nil
}

func (o *Options) addVolume(v string) error {
	f := strings.Split(v, ":")
	t := tree{shared: true}
	var opts []string
	if len(f) == 3 {
		switch f[2] {
		case "ro":
			t.readOnly, opts = true, []string{"rro"}
		case "rw":
		default:
			return fmt.Errorf("the option is ro or rw, not %q", f[2])
		}
		f = f[:2]
	}
	if len(f) != 2 || f[0] == "" || !strings.HasPrefix(f[1], "/") {
		return fmt.Errorf("it must be SRC:DST[:ro], DST an absolute path")
	}
	src, err := filepath.Abs(f[0])
	if err == nil {
		src, err = filepath.EvalSymlinks(src)
	}
	if err != nil {
		return err
	}
	return o.addTree(src, filepath.Clean(f[1]), opts, nil, t)
}

// tree says how a directory of the host is shown.
type tree struct {
	overlay, readOnly, shared bool
	single                    bool // without what is mounted below
	before                    int
	ids                       *specs.Mount // has the mappings; nil: none
}

// addTree adds the mount of src, a real path, on dst, and those that lie below it on the host: the gofer serves each by itself, so that
// they have device numbers of their own.
func (o *Options) addTree(src, dst string, options, hidden []string, t tree) error {
	if _, err := os.Stat(src); err != nil {
		return err
	}
	below := []string{"."}
	if !t.single {
		more, err := submounts(src, hidden)
		if err != nil {
			return err
		}
		below = append(below, more...)
	}
	// In /proc/mounts: the host's paths are the host's affair.
	source := map[bool]string{false: "host", true: "overlay"}[t.overlay]
	follows := t.shared && slices.ContainsFunc(options, func(o string) bool { return strings.HasSuffix(o, "slave") || strings.HasSuffix(o, "shared") })
	for _, rel := range below {
		s := filepath.Join(src, rel)
		if rel != "." {
			// What cannot be looked at cannot be shown either.
			if _, err := os.Stat(s); err != nil {
				continue
			}
		}
		own, ro := options, t.readOnly
		if t.shared && rel != "." {
			// Those that are not recursive are the topmost mount's alone.
			own = slices.DeleteFunc(slices.Clone(options), func(o string) bool {
				return !strings.HasPrefix(o, "r") || !slices.Contains(boot.MountOptions(), o[1:])
			})
			ro = slices.Contains(own, "rro")
		}
		if !t.overlay {
			own = slices.Concat(own, hostOptions(s))
		}
		id := uint32(len(o.gofer))
		o.gofer = append(o.gofer, goferMount{ID: id, Source: s, ReadOnly: ro, Shared: t.shared, Follows: follows, Optional: rel != "."})
		m := boot.Mount{
			ID: id, Destination: filepath.Join(dst, rel), Before: t.before, ReadOnly: ro, Shared: t.shared, Follows: follows, Overlay: t.overlay, Options: own,
			Source: source, Root: rootOf(s),
		}
		if t.ids != nil && (rel == "." || slices.Contains(t.ids.Options, "ridmap")) {
			m.UIDMappings, m.GIDMappings = t.ids.UIDMappings, t.ids.GIDMappings
		}
		o.Config.Mounts = append(o.Config.Mounts, m)
	}
	return nil
}
