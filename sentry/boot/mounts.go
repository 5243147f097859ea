package boot

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"moat/sentry/fs/gofer"
	"moat/sentry/fs/overlay"
	"moat/sentry/fs/tmpfs"
	"moat/sentry/vfs"
)

// mountAll makes the container's mount tree: the root, then what config.json lists, in order.
func (b *container) mountAll() error {
	if len(b.c.Mounts) == 0 || b.c.Mounts[0].ID != 0 {
		return fmt.Errorf("the configuration has no root mount")
	}
	root := &b.c.Mounts[0]
	fs, flags, err := b.goferFS(root)
	if err != nil {
		return fmt.Errorf("mount the root: %w", err)
	}
	ns, err := vfs.NewMountNamespace(b.k.RootUserNamespace(), fs, root.Source, flags)
	if err != nil {
		return fmt.Errorf("mount the root: %w", err)
	}
	b.ns.Mount = ns
	host := b.c.Mounts[1:]
	for i := range b.c.Spec.Mounts {
		for len(host) > 0 && host[0].Before <= i {
			if err := b.mountHost(ns, &host[0]); err != nil {
				return err
			}
			host = host[1:]
		}
		if err := b.mountSpec(ns, &b.c.Spec.Mounts[i]); err != nil {
			return err
		}
	}
	for i := range host {
		if err := b.mountHost(ns, &host[i]); err != nil {
			return err
		}
	}
	return nil
}

// goferFS makes the file system of a gofer's mount, and its ST_* flags.
func (b *container) goferFS(m *Mount) (vfs.FileSystem, uint32, error) {
	flags, data, err := parseOptions(m.Options)
	if err == nil && data != "" {
		err = fmt.Errorf("option %q is not for bind mounts", data)
	}
	if err != nil {
		return nil, 0, err
	}
	st := vfs.MountFlags(flags)
	ids, err := mappings(m.UIDMappings, m.GIDMappings)
	if err != nil {
		return nil, 0, err
	}
	g, err := gofer.Mount(b.gofer, m.ID, gofer.Options{Shared: m.Shared, Follows: m.Follows, IDs: ids})
	if err != nil {
		return nil, 0, err
	}
	if m.ReadOnly && !m.Overlay {
		st |= unix.ST_RDONLY
	}
	if !m.Overlay {
		return g, st, nil
	}
	attr, err := g.Root().Attr(vfs.Background())
	if err != nil {
		return nil, 0, err
	}
	if attr.Mode&unix.S_IFMT != unix.S_IFDIR {
		return g, st | unix.ST_RDONLY, nil
	}
	fs, err := overlay.New(tmpfs.New(b.mem, tmpfs.Options{NoLimits: true}), g)
	if err != nil {
		return nil, 0, err
	}
	return fs, st, nil
}

func (b *container) mountHost(ns *vfs.MountNamespace, m *Mount) error {
	fs, flags, err := b.goferFS(m)
	if err != nil {
		return fmt.Errorf("mount %s on %s: %w", m.Source, m.Destination, err)
	}
	attr, err := fs.Root().Attr(vfs.Background())
	if err == nil {
		err = b.mountAt(ns, m.Destination, m.Options, attr.Mode&unix.S_IFMT == unix.S_IFDIR, func(p vfs.Path) error { return vfs.MountFS(fs, p, m.Source, m.Root, flags) })
	}
	if err != nil {
		return fmt.Errorf("mount %s on %s: %w", m.Source, m.Destination, err)
	}
	return nil
}

// mountSpec makes one mount of config.json that is the sandbox's own.
func (b *container) mountSpec(ns *vfs.MountNamespace, m *specs.Mount) error {
	fail := func(err error) error { return fmt.Errorf("mounts: %s on %s: %w", m.Type, m.Destination, err) }
	flags, data, err := parseOptions(m.Options)
	if err != nil {
		return fail(err)
	}
	typ, source := m.Type, m.Source
	if source == "" {
		source = typ
	}
	if typ == "" {
		return fail(fmt.Errorf("no type"))
	}
	if typ == "proc" || typ == "sysfs" {
		// Programs trust these by their path: no symlink may lead there. One that is not there will be made.
		if mode, ok := modeAt(ns, m.Destination, 0); ok && mode&unix.S_IFMT != unix.S_IFDIR {
			return fail(fmt.Errorf("it must be mounted on ordinary directory"))
		}
	}
	if m.Destination == "/dev" {
		// It becomes read-only once it is filled.
		flags &^= unix.MS_RDONLY
	}
	if typ == "tmpfs" && !strings.Contains(data, "mode=") {
		// It has the mode of what it covers, as with runc.
		if mode, ok := modeAt(ns, m.Destination, vfs.Follow|vfs.Directory); ok {
			data = strings.TrimPrefix(fmt.Sprintf("%s,mode=%o", data, mode&0o7777), ",")
		}
	}
	err = b.mountAt(ns, m.Destination, m.Options, true, func(p vfs.Path) error {
		err := vfs.DoMount(b.inside(vfs.Background()), source, p, typ, flags, data)
		if err != nil || typ != "tmpfs" || !slices.Contains(m.Options, "tmpcopyup") {
			return err
		}
		root := ns.Root()
		defer root.DecRef()
		to, err := vfs.Resolve(inRoot{vfs.Background(), root}, root, m.Destination, vfs.Follow)
		if err == nil {
			err = copyUp(p, to.Inode())
			to.DecRef()
		}
		return err
	})
	if err == unix.ENODEV {
		err = fmt.Errorf("moat has no file system of that type")
	}
	if err != nil {
		return fail(err)
	}
	return nil
}

// copyUp copies what is in the directory from into the empty directory to (tmpcopyup).
func copyUp(from vfs.Path, to vfs.Inode) error {
	ctx := inRoot{vfs.Background(), from}
	d, err := vfs.Open(ctx, from, ".", vfs.OpenOptions{Flags: unix.O_DIRECTORY})
	if err != nil {
		return err
	}
	defer d.DecRef()
	names := []string{}
	for n := -1; n < len(names); {
		n = len(names)
		if err := d.ReadDir(ctx, func(e vfs.Dirent) error { names = append(names, e.Name); return nil }); err != nil {
			return err
		}
	}
	for _, name := range names[2:] { // behind . and ..
		p, err := vfs.Resolve(ctx, from, name, 0)
		if err == nil {
			err = copyOne(p, to, name)
			p.DecRef()
		}
		if err != nil {
			return fmt.Errorf("tmpcopyup: %s: %w", name, err)
		}
	}
	return nil
}

func copyOne(p vfs.Path, to vfs.Inode, name string) error {
	ctx, from := vfs.Background(), p.Inode()
	a, err := from.Attr(ctx)
	if err != nil {
		return err
	}
	o := vfs.CreateOptions{Mode: a.Mode, UID: a.UID, GID: a.GID, Rdev: a.Rdev}
	switch a.FileType() {
	case unix.S_IFDIR:
		n, err := to.Mkdir(ctx, name, o)
		if err != nil {
			return err
		}
		return copyUp(p, n)
	case unix.S_IFLNK:
		target, err := from.Readlink(ctx)
		if err == nil {
			_, err = to.Symlink(ctx, name, target, o)
		}
		return err
	}
	n, err := to.Create(ctx, name, o)
	if err == nil && a.FileType() == unix.S_IFREG {
		err = overlay.CopyData(from, n, a.Size)
	}
	return err
}

// modeAt is the type and mode of what is at an absolute path in ns; false if nothing is.
func modeAt(ns *vfs.MountNamespace, path string, how uint32) (mode uint16, ok bool) {
	root := ns.Root()
	defer root.DecRef()
	p, err := vfs.Resolve(inRoot{vfs.Background(), root}, root, path, how)
	if err != nil {
		return 0, false
	}
	defer p.DecRef()
	return p.Inode().Mode(), true
}

// finishDev makes /dev read-only, if config.json says so, now that everything is in it.
func (b *container) finishDev() error {
	root := b.ns.Mount.Root()
	defer root.DecRef()
	for _, m := range b.c.Spec.Mounts {
		if m.Destination == "/dev" && slices.Contains(m.Options, "ro") {
			return remountReadOnly(inRoot{vfs.Background(), root}, root, m.Destination)
		}
	}
	return nil
}

// mountAt finds the place to mount on, which it makes if it is not there, and calls fn with it. Then the mount gets the propagation that opts name.
func (b *container) mountAt(ns *vfs.MountNamespace, dest string, opts []string, dir bool, fn func(vfs.Path) error) error {
	dest = path.Clean("/" + dest)
	root := ns.Root()
	defer root.DecRef()
	ctx := inRoot{vfs.Background(), root}
	p, err := vfs.Resolve(ctx, root, dest, vfs.Follow)
	if err == unix.ENOENT {
		if err = makePoint(ctx, root, dest, dir); err == nil {
			p, err = vfs.Resolve(ctx, root, dest, vfs.Follow)
		}
	}
	if err != nil {
		return err
	}
	err = fn(p)
	p.DecRef()
	for _, o := range opts {
		kind, ok := propagation[o]
		if !ok || err != nil {
			continue
		}
		if p, err = vfs.Resolve(ctx, root, dest, vfs.Follow); err == nil {
			err = vfs.DoMount(vfs.Background(), "", p, "", kind, "")
			p.DecRef()
		}
	}
	return err
}

// propagation are the options that are not about a mount but about what happens to it (mount_namespaces(7)).
var propagation = map[string]uint64{
	"private": unix.MS_PRIVATE, "rprivate": unix.MS_PRIVATE | unix.MS_REC, "shared": unix.MS_SHARED, "rshared": unix.MS_SHARED | unix.MS_REC,
	"slave": unix.MS_SLAVE, "rslave": unix.MS_SLAVE | unix.MS_REC, "unbindable": unix.MS_UNBINDABLE, "runbindable": unix.MS_UNBINDABLE | unix.MS_REC,
}

// inRoot is the kernel's context with a root, so that absolute symlinks of the container stay in it.
type inRoot struct {
	vfs.Context
	root vfs.Path
}

func (c inRoot) Root() vfs.Path { return c.root }
func (c inRoot) Cwd() vfs.Path  { return c.root }

// MaxLinks is how many symlinks there may be in a path (path_resolution(7)).
const MaxLinks = 40

// Redirected is the path of parts, part i of which is a symlink to link. What is above it has no symlinks, so that .. is what is left of it.
func Redirected(parts []string, i int, link string) []string {
	if !path.IsAbs(link) {
		link = path.Join("/", path.Join(parts[:i]...), link)
	}
	return strings.Split(strings.Trim(path.Join("/", link, path.Join(parts[i+1:]...)), "/"), "/")
}

// makePoint makes a directory or an empty file to mount on, with the directories above it. A symlink that leads nowhere is led somewhere.
func makePoint(ctx vfs.Context, root vfs.Path, dest string, dir bool) error {
	parts := strings.Split(strings.Trim(dest, "/"), "/")
	at := ""
	for i, links := 0, 0; i < len(parts); i++ {
		at += "/" + parts[i]
		p, err := vfs.Resolve(ctx, root, at, 0)
		if err == nil {
			link, e := vfs.Readlink(ctx, p)
			p.DecRef()
			if e != nil {
				continue
			}
			if links++; links > MaxLinks {
				return fmt.Errorf("make %s: %w", at, unix.ELOOP)
			}
			parts = Redirected(parts, i, link)
			at, i = "", -1
			continue
		}
		if i == len(parts)-1 && !dir {
			err = vfs.Mknod(ctx, root, at, unix.S_IFREG|0o644, 0)
		} else {
			err = vfs.Mkdir(ctx, root, at, 0o755)
		}
		if err != nil && err != unix.EEXIST {
			return fmt.Errorf("make %s: %w", at, err)
		}
	}
	return nil
}

// msFlags are mount(8)'s options that are flags; those of a negative name clear them.
var msFlags = map[string]struct {
	flag  uint64
	clear bool
}{
	"ro": {unix.MS_RDONLY, false}, "rw": {unix.MS_RDONLY, true}, "nosuid": {unix.MS_NOSUID, false}, "suid": {unix.MS_NOSUID, true},
	"nodev": {unix.MS_NODEV, false}, "dev": {unix.MS_NODEV, true}, "noexec": {unix.MS_NOEXEC, false}, "exec": {unix.MS_NOEXEC, true},
	"noatime": {unix.MS_NOATIME, false}, "atime": {unix.MS_NOATIME, true}, "nodiratime": {unix.MS_NODIRATIME, false}, "diratime": {unix.MS_NODIRATIME, true},
	"strictatime": {unix.MS_STRICTATIME, false}, "nostrictatime": {unix.MS_STRICTATIME, true}, "nosymfollow": {unix.MS_NOSYMFOLLOW, false},
	"relatime": {}, "norelatime": {}, "defaults": {}, "sync": {}, "async": {}, "dirsync": {}, "bind": {}, "rbind": {},
	"private": {}, "rprivate": {}, "shared": {}, "rshared": {}, "slave": {}, "rslave": {}, "unbindable": {}, "runbindable": {},
	"rro": {unix.MS_RDONLY, false}, "rrw": {unix.MS_RDONLY, true}, "rnosuid": {unix.MS_NOSUID, false}, "rsuid": {unix.MS_NOSUID, true},
	"rnodev": {unix.MS_NODEV, false}, "rdev": {unix.MS_NODEV, true}, "rnoexec": {unix.MS_NOEXEC, false}, "rexec": {unix.MS_NOEXEC, true},
	"rnoatime": {unix.MS_NOATIME, false}, "ratime": {unix.MS_NOATIME, true}, "rnodiratime": {unix.MS_NODIRATIME, false}, "rdiratime": {unix.MS_NODIRATIME, true},
	"rrelatime": {}, "rnorelatime": {}, "rstrictatime": {unix.MS_STRICTATIME, false}, "rnostrictatime": {unix.MS_STRICTATIME, true},
	"rnosymfollow": {unix.MS_NOSYMFOLLOW, false}, "symfollow": {unix.MS_NOSYMFOLLOW, true}, "rsymfollow": {unix.MS_NOSYMFOLLOW, true}, "tmpcopyup": {}, "nofail": {}, "idmap": {}, "ridmap": {}, "mand": {}, "nomand": {}, "iversion": {}, "noiversion": {}, "silent": {}, "loud": {},
}

// MountOptions are the options of a mount that moat knows besides those of the file systems, in order.
func MountOptions() []string { return slices.Sorted(maps.Keys(msFlags)) }

// parseOptions separates MS_* flags from what is the file system's own.
func parseOptions(opts []string) (flags uint64, data string, err error) {
	var rest []string
	for _, o := range opts {
		f, ok := msFlags[o]
		switch {
		case !ok:
			if o == "" || strings.ContainsAny(o, "\x00,") {
				return 0, "", fmt.Errorf("bad option %q", o)
			}
			rest = append(rest, o)
		case f.clear:
			flags &^= f.flag
		default:
			flags |= f.flag
		}
	}
	return flags, strings.Join(rest, ","), nil
}
