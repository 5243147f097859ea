package boot

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"moat/sentry/kernel/auth"
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

// applySpec does what is to be done in the container's mount tree before its first process.
func (b *container) applySpec() error {
	root := b.ns.Mount.Root()
	defer root.DecRef()
	ctx := inRoot{vfs.WithCredentials(auth.NewRoot(b.k.RootUserNamespace().Root())), root}
	l := &b.c.Spec
	if p, ok := propagation[l.RootfsPropagation]; ok {
		if err := vfs.DoMount(vfs.Background(), "", root, "", p, ""); err != nil {
			return fmt.Errorf("linux.rootfsPropagation: %w", err)
		}
	} else if l.RootfsPropagation != "" {
		return fmt.Errorf("linux.rootfsPropagation: %q is not a kind of propagation", l.RootfsPropagation)
	}
	if !b.c.Plain {
		if err := makeDevices(ctx, root, l.Devices); err != nil {
			return err
		}
	}
	for _, k := range slices.Sorted(maps.Keys(l.Sysctl)) {
		if err := writeSysctl(b.inside(ctx), root, k, l.Sysctl[k]); err != nil {
			return fmt.Errorf("linux.sysctl: %s: %w", k, err)
		}
	}
	for _, p := range l.ReadonlyPaths {
		if err := readOnlyPath(ctx, root, p); err != nil {
			return fmt.Errorf("linux.readonlyPaths: %s: %w", p, err)
		}
	}
	var empty vfs.Path
	defer func() {
		if empty.Mount != nil {
			empty.DecRef()
		}
	}()
	for _, p := range slices.Compact(slices.Sorted(slices.Values(l.MaskedPaths))) {
		if err := maskPath(ctx, root, p, &empty); err != nil {
			return fmt.Errorf("linux.maskedPaths: %s: %w", p, err)
		}
	}
	return nil
}

// Overhead is what is kept of a memory limit for the sentry, the gofer and the host's page tables: an eighth, at least 16 MiB and at most 64,
// but never more than half.
func Overhead(limit uint64) uint64 { return min(max(limit/8, 16<<20), 64<<20, limit/2) }

// limit sets the limits that the sandbox keeps itself. The first container's memory is the sandbox's, and what moat takes is part of it.
func (b *container) limit(r *specs.LinuxResources) {
	if r == nil {
		return
	}
	if m := r.Memory; m != nil && m.Limit != nil && *m.Limit > 0 {
		n := uint64(*m.Limit)
		b.cg.MemoryMax.Store(n)
		if b == b.first {
			b.mem.SetLimit(n - Overhead(n))
		} else {
			b.cg.Account().SetLimit(n)
		}
	}
	if c := r.CPU; c != nil {
		if c.Quota != nil {
			b.cg.Quota.Store(*c.Quota)
		}
		if c.Period != nil {
			b.cg.Period.Store(int64(*c.Period))
		}
		if b != b.first && b.cg.Quota.Load() > 0 {
			b.k.HoldToQuota(b.cg)
		}
		if s, err := cpuList(c.Cpus); err == nil && b == b.first {
			b.k.Confine(&s) // a set that the host has taken
		}
		if c.Shares != nil && *c.Shares >= 2 {
			// The specification's conversion from version 1.
			b.cg.Weight.Store(1 + (min(*c.Shares, 262144)-2)*9999/262142)
		}
	}
	if p := r.Pids; p != nil && p.Limit != nil {
		b.cg.MaxTasks.Store(0) // no limit
		if *p.Limit > 0 {
			b.cg.MaxTasks.Store(uint64(*p.Limit) + 1)
		}
	}
}

// defaultDevices are those that every container has (config-linux.md).
var defaultDevices = []specs.LinuxDevice{
	{Path: "/dev/null", Type: "c", Major: 1, Minor: 3}, {Path: "/dev/zero", Type: "c", Major: 1, Minor: 5}, {Path: "/dev/full", Type: "c", Major: 1, Minor: 7},
	{Path: "/dev/random", Type: "c", Major: 1, Minor: 8}, {Path: "/dev/urandom", Type: "c", Major: 1, Minor: 9}, {Path: "/dev/tty", Type: "c", Major: 5, Minor: 0},
}

// makeDevices makes device nodes. One whose device the sandbox does not have can be looked at, not opened.
func makeDevices(ctx inRoot, root vfs.Path, ds []specs.LinuxDevice) error {
	for i, d := range append(defaultDevices[:len(defaultDevices):len(defaultDevices)], ds...) {
		mode := uint32(0o666)
		if d.FileMode != nil {
			mode = uint32(*d.FileMode & os.ModePerm)
		}
		kind, ok := map[string]uint32{"c": unix.S_IFCHR, "u": unix.S_IFCHR, "b": unix.S_IFBLK, "p": unix.S_IFIFO}[d.Type]
		if !ok {
			return fmt.Errorf("linux.devices: %s: there is no type %q", d.Path, d.Type)
		}
		err := makeParents(ctx, root, d.Path)
		if err == nil {
			err = vfs.Mknod(ctx, root, d.Path, uint16(kind|mode), unix.Mkdev(uint32(d.Major), uint32(d.Minor)))
		}
		if err == nil && (d.UID != nil || d.GID != nil) {
			err = chown(ctx, root, d.Path, d.UID, d.GID)
		}
		if err != nil && err != unix.EEXIST && i >= len(defaultDevices) {
			return fmt.Errorf("linux.devices: make %s: %w", d.Path, err)
		}
	}
	return nil
}

func makeParents(ctx inRoot, root vfs.Path, path string) error {
	if i := strings.LastIndexByte(strings.TrimRight(path, "/"), '/'); i > 0 {
		return makePoint(ctx, root, path[:i], true)
	}
	return nil
}

func chown(ctx inRoot, root vfs.Path, path string, uid, gid *uint32) error {
	none := ^uint32(0)
	if uid == nil {
		uid = &none
	}
	if gid == nil {
		gid = &none
	}
	p, err := vfs.Resolve(ctx, root, path, 0)
	if err != nil {
		return err
	}
	defer p.DecRef()
	return vfs.Chown(ctx, p, auth.KUID(*uid), auth.KGID(*gid))
}

// writeSysctl writes a file of /proc/sys.
func writeSysctl(ctx vfs.Context, root vfs.Path, name, value string) error {
	if !strings.Contains(name, "/") {
		name = strings.ReplaceAll(name, ".", "/")
	}
	f, err := vfs.Open(ctx, root, "/proc/sys/"+name, vfs.OpenOptions{Flags: unix.O_WRONLY})
	if err != nil {
		return err
	}
	defer f.DecRef()
	_, err = f.Write(ctx, usermem.Bytes([]byte(value)), 0)
	return err
}

// readOnlyPath makes a file or tree read-only; one that is not there is left out.
func readOnlyPath(ctx inRoot, root vfs.Path, path string) error {
	p, err := vfs.Resolve(ctx, root, path, vfs.Follow)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return nil
	}
	if err == nil {
		err = vfs.BindMount(p, p, true)
		p.DecRef()
	}
	if err != nil {
		return err
	}
	return remountReadOnly(ctx, root, path)
}

// remountReadOnly makes the mount at path read-only and leaves its other flags.
func remountReadOnly(ctx inRoot, root vfs.Path, path string) error {
	p, err := vfs.Resolve(ctx, root, path, vfs.Follow)
	if err != nil {
		return err
	}
	defer p.DecRef()
	ms := uint64(unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY)
	for st, f := range map[uint32]uint64{unix.ST_NOSUID: unix.MS_NOSUID, unix.ST_NODEV: unix.MS_NODEV, unix.ST_NOEXEC: unix.MS_NOEXEC} {
		if p.Mount.Flags()&st != 0 {
			ms |= f
		}
	}
	return vfs.DoMount(vfs.Background(), "", p, "", ms, "")
}

// maskPath hides a file behind /dev/null, a directory behind an empty one, which all share.
func maskPath(ctx inRoot, root vfs.Path, path string, empty *vfs.Path) error {
	p, err := vfs.Resolve(ctx, root, path, vfs.Follow)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return nil
	}
	if err != nil {
		return err
	}
	defer p.DecRef()
	if p.Inode().Mode()&unix.S_IFMT == unix.S_IFDIR {
		if empty.Mount != nil {
			return vfs.BindMount(*empty, p, false)
		}
		if err = vfs.DoMount(vfs.Background(), "tmpfs", p, "tmpfs", unix.MS_RDONLY, "size=4k"); err == nil {
			*empty, err = vfs.Resolve(ctx, root, path, vfs.Follow)
		}
		return err
	}
	null, err := vfs.Resolve(ctx, root, "/dev/null", vfs.Follow)
	if err != nil {
		return err
	}
	defer null.DecRef()
	return vfs.BindMount(null, p, false)
}

// bindConsole shows the first process' terminal as /dev/console.
func (b *container) bindConsole(ctx inRoot, root vfs.Path, name string) error {
	return b.mountAt(b.ns.Mount, "/dev/console", nil, false, func(at vfs.Path) error {
		tty, err := vfs.Resolve(ctx, root, "/dev/"+name, vfs.Follow)
		if err != nil {
			return err
		}
		defer tty.DecRef()
		return vfs.BindMount(tty, at, false)
	})
}
