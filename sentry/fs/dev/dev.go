// Package dev has the devices of a container (null(4), zero, full, random, urandom, tty(4), kmsg) and the file system
// type "devtmpfs", a tmpfs that is born with their nodes.
//
// The package has no locks of its own but random.mu, a leaf. Nothing here makes a host call: random bytes come from a ChaCha8
// generator seeded by the host at start-up.
package dev

import (
	"golang.org/x/sys/unix"

	"moat/sentry/fs/tmpfs"
	"moat/sentry/kernel/auth"
	"moat/sentry/memory"
	"moat/sentry/vfs"
)

// node is one entry of devtmpfs.
type node struct {
	name         string
	major, minor uint32
	mode         uint16
}

var nodes = []node{
	{"null", 1, 3, 0o666}, {"zero", 1, 5, 0o666}, {"full", 1, 7, 0o666}, {"random", 1, 8, 0o666}, {"urandom", 1, 9, 0o666},
	{"tty", 5, 0, 0o666},
}

var links = [][2]string{
	{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"},
	{"core", "/proc/kcore"}, {"ptmx", "pts/ptmx"},
}

// Register makes the devices' numbers and "devtmpfs" known to vfs.
func Register(mem *memory.File) error {
	shm, err := tmpfs.NewShm(mem)
	if err != nil {
		return err
	}
	for minor, impl := range map[uint32]vfs.FileImpl{3: &null{}, 5: &zero{shm: shm}, 7: &full{zero{shm: shm}}, 8: &random{}, 9: &urandom{}} {
		vfs.RegisterDevice(vfs.CharDevice, 1, minor, func(vfs.Context, *vfs.Dentry, uint32) (vfs.FileImpl, error) { return impl, nil })
	}
	vfs.RegisterFileSystem("devtmpfs", func(ctx vfs.Context, _, data string) (vfs.FileSystem, error) {
		c := ctx.Credentials()
		o, err := tmpfs.ParseOptions(c.UserNS, mem, tmpfs.Options{UID: c.FSUID, GID: c.FSGID, Mode: 0o755}, data)
		if err != nil {
			return nil, err
		}
		return New(mem, o)
	}, func(ctx vfs.Context) *auth.UserNamespace { return ctx.Credentials().UserNS.Root() })
	return nil
}

// New returns a tmpfs with the devices' nodes, the usual links, and the directories that others are mounted on.
func New(mem *memory.File, o tmpfs.Options) (vfs.FileSystem, error) {
	fs := tmpfs.New(mem, o)
	root, ctx := fs.Root(), vfs.Background()
	for _, n := range nodes {
		opts := vfs.CreateOptions{Mode: unix.S_IFCHR | n.mode, Rdev: unix.Mkdev(n.major, n.minor)}
		if _, err := root.Create(ctx, n.name, opts); err != nil {
			return nil, err
		}
	}
	for _, l := range links {
		if _, err := root.Symlink(ctx, l[0], l[1], vfs.CreateOptions{Mode: unix.S_IFLNK | 0o777, UID: o.UID, GID: o.GID}); err != nil {
			return nil, err
		}
	}
	for _, d := range []string{"pts", "shm", "mqueue"} {
		if _, err := root.Mkdir(ctx, d, vfs.CreateOptions{Mode: unix.S_IFDIR | 0o755, UID: o.UID, GID: o.GID}); err != nil {
			return nil, err
		}
	}
	return fs, nil
}
