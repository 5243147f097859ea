package oci

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// mapped gives r a user namespace whose 65536 IDs are the host's from 100000 on, and a root that is 100000's. It returns the root.
func mapped(t *testing.T, r *runtime) string {
	t.Helper()
	own := filepath.Join(t.TempDir(), "root")
	if err := os.CopyFS(own, os.DirFS(rootfs)); err != nil {
		t.Fatal(err)
	}
	filepath.WalkDir(own, func(path string, _ fs.DirEntry, err error) error { return os.Lchown(path, 100000, 100000) })
	r.spec.Root.Path, r.spec.Root.Readonly = own, false
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	r.spec.Linux.UIDMappings, r.spec.Linux.GIDMappings = ids, ids
	r.spec.Linux.Namespaces = append(r.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	return own
}

// owner is a file's on the host.
func owner(t *testing.T, path string) (uid, gid uint32) {
	t.Helper()
	fi, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	st := fi.Sys().(*syscall.Stat_t)
	return st.Uid, st.Gid
}

// TestUserNamespace: a container's IDs are the host's behind a mapping. What it sees is what runc's container sees.
func TestUserNamespace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	r := newRuntime(t)
	own := mapped(t, r)
	for name, ids := range map[string][2]int{"theirs": {0, 0}, "five": {100005, 100006}} {
		path := filepath.Join(own, "tmp", name)
		os.WriteFile(path, nil, 0o644)
		os.Chown(path, ids[0], ids[1])
	}
	caps := []string{"CAP_CHOWN", "CAP_FOWNER", "CAP_DAC_OVERRIDE", "CAP_SETUID", "CAP_SETGID", "CAP_SYS_ADMIN", "CAP_NET_ADMIN"}
	r.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Permitted: caps, Effective: caps}
	r.spec.Linux.ReadonlyPaths = nil
	r.spec.Linux.Sysctl = map[string]string{"net.core.somaxconn": "99", "kernel.shmmax": "12345678"}
	r.spec.Mounts = append(r.spec.Mounts, specs.Mount{Destination: "/dev/pts", Type: "devpts", Options: []string{"newinstance", "ptmxmode=0666", "gid=5"}},
		specs.Mount{Destination: "/mine", Type: "tmpfs", Options: []string{"uid=7", "gid=8"}})
	r.sh(`cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '
s() { stat -c '%n %u %g' "$@"; }
cd /tmp; s theirs five /dev /dev/null /dev/pts/ptmx /mine /proc/cpuinfo /proc/sys/vm/overcommit_memory
cat /proc/sys/net/core/somaxconn /proc/sys/kernel/shmmax
(echo 1 > /proc/sys/vm/overcommit_memory) 2>/dev/null || echo refused
touch new; chown 7:8 new; s new
chown 0 theirs 2>/dev/null || echo no
chown 70000 new 2>/dev/null || echo no
mkdir m; mount -t tmpfs none m && s m
hostname inside; hostname`)
	r.run(` 0 100000 65536
 0 100000 65536
theirs 65534 65534
five 5 6
/dev 0 0
/dev/null 65534 65534
/dev/pts/ptmx 0 0
/mine 7 8
/proc/cpuinfo 65534 65534
/proc/sys/vm/overcommit_memory 65534 65534
99
12345678
refused
new 7 8
no
no
m 0 0
inside
`, 0)
	if u, g := owner(t, filepath.Join(own, "tmp", "new")); u != 100007 || g != 100008 {
		t.Errorf("on the host new is %d:%d's", u, g)
	}
	if u, g := owner(t, filepath.Join(own, "tmp", "m")); u != 100000 || g != 100000 {
		t.Errorf("on the host m is %d:%d's", u, g)
	}

	// A process of exec is in it too; a user who is not mapped is refused.
	r.spec.Process.User.UID, r.spec.Process.User.AdditionalGids = 7, []uint32{9}
	r.spec.Process.Args = []string{"/bin/sh", "-c", "id -u; id -G; sleep 100"}
	r.write()
	if res := r.moat("run", "-d", "-b", r.bundle, "c"); res.code != 0 {
		t.Fatal(res)
	}
	if res := r.moat("exec", "-u", "5:6", "c", "sh", "-c", "id -u; id -g; echo x > /mine/x || echo no"); !strings.HasPrefix(res.out, "5\n6\nno\n") {
		t.Errorf("exec: %v", res)
	}
	if res := r.moat("exec", "-u", "70000", "c", "id"); res.code == 0 || !strings.Contains(res.err, "process.user: 70000:0") {
		t.Errorf("exec as a user who is not mapped: %v", res)
	}
	r.moat("delete", "-f", "c")

	namespaces := r.spec.Linux.Namespaces
	for name, c := range map[string]struct {
		set  func()
		want string
	}{
		"a user who is not mapped": {func() { r.spec.Process.User.UID = 70000 }, "process.user: 70000:0"},
		"a map that overlaps": {func() { r.spec.Linux.UIDMappings = append(r.spec.Linux.UIDMappings, r.spec.Linux.UIDMappings[0]) },
			"linux.uidMappings, linux.gidMappings: ["},
		"a map without root":    {func() { r.spec.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 1, HostID: 100000, Size: 10}} }, "0 is not mapped"},
		"a map of groups alone": {func() { r.spec.Linux.UIDMappings = nil }, "linux.uidMappings, linux.gidMappings: []"},
		"no user namespace":     {func() { r.spec.Linux.Namespaces = nil }, "linux.namespaces has no user namespace"},
	} {
		r.spec.Process.User, r.spec.Linux.Namespaces = specs.User{}, namespaces
		ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
		r.spec.Linux.UIDMappings, r.spec.Linux.GIDMappings = ids, ids
		c.set()
		r.write()
		if res := r.moat("run", "-b", r.bundle, "c"); res.code == 0 || !strings.Contains(res.err, c.want) {
			t.Errorf("%s: %v", name, res)
		}
	}
}

// TestMappedMounts: mappings of one mount, as config.json has them or by the options idmap and ridmap. What is seen is what Linux shows on a mount with
// MOUNT_ATTR_IDMAP.
func TestMappedMounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	r := newRuntime(t)
	mapped(t, r)
	caps := []string{"CAP_CHOWN", "CAP_FOWNER", "CAP_DAC_OVERRIDE"}
	r.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Permitted: caps, Effective: caps}
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(dir, 0o777), os.Chown(dir, 0, 10)); err != nil {
		t.Fatal(err)
	}
	sub := filepath.Join(dir, "sub")
	os.Mkdir(sub, 0o777)
	if err := syscall.Mount("none", sub, "tmpfs", 0, "mode=777"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(sub, syscall.MNT_DETACH) })
	for name, id := range map[string]int{"f": 3, "sub/g": 3, "alien": 5000} {
		name = filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(name, nil, 0o666), os.Chmod(name, 0o666), os.Chown(name, id, id+11)); err != nil {
			t.Fatal(err)
		}
	}
	m := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 1000}}
	shift := []specs.LinuxIDMapping{{ContainerID: 10, HostID: 100000, Size: 1000}}
	mounts := append(r.spec.Mounts,
		specs.Mount{Destination: "/plain", Source: dir, Options: []string{"rbind"}},
		specs.Mount{Destination: "own", Source: dir, Options: []string{"rbind"}, UIDMappings: m, GIDMappings: shift},
		specs.Mount{Destination: "/one", Source: dir, Options: []string{"rbind", "idmap"}},
		specs.Mount{Destination: "/all", Source: dir, Options: []string{"rbind", "ridmap"}})
	r.spec.Mounts = mounts
	r.sh(`exec 2>&1; s() { stat -c '%n %u %g' "$@"; }
for d in /plain /own /one /all; do s $d/f $d/sub/g; done
touch /own/new /all/sub/new; chown 20:20 /own/new; s /own/new; chown 3000 /own/new
cd /own; s alien; cat alien; echo x >alien; rm -f alien; mv alien a; mv new alien; echo x >/all/alien; ls`)
	r.run(`/plain/f 65534 65534
/plain/sub/g 65534 65534
/own/f 3 4
/own/sub/g 65534 65534
/one/f 3 14
/one/sub/g 65534 65534
/all/f 3 14
/all/sub/g 3 14
/own/new 20 20
chown: /own/new: Value too large for defined data type
alien 65534 65534
sh: can't create alien: Permission denied
rm: can't remove 'alien': Value too large for defined data type
mv: can't rename 'alien': Value too large for defined data type
mv: can't rename 'new': Value too large for defined data type
alien
f
new
sub
`, 0)
	for name, want := range map[string][2]uint32{"new": {20, 30}, "sub/new": {0, 0}} {
		if u, g := owner(t, filepath.Join(dir, name)); u != want[0] || g != want[1] {
			t.Errorf("on the host %s is %d:%d's", name, u, g)
		}
	}

	// Without a user namespace the IDs of the mount are the container's.
	namespaces := r.spec.Linux.Namespaces
	r.spec.Linux.Namespaces = slices.DeleteFunc(slices.Clone(namespaces), func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace })
	r.spec.Linux.UIDMappings, r.spec.Linux.GIDMappings = nil, nil
	r.spec.Mounts = mounts[:len(mounts)-2]
	r.sh(`exec 2>&1; cd /own; stat -c '%u %g' f alien; chmod 600 f && ls -l f | cut -c1-10; echo x >alien; touch made; ls`)
	r.run(`100003 100004
65534 65534
-rw-------
sh: can't create alien: Permission denied
touch: made: Value too large for defined data type
alien
f
new
sub
`, 0)

	for name, bad := range map[string]specs.Mount{
		"are for bind mounts only": {Destination: "/t", Type: "tmpfs", Options: []string{"idmap"}},
		"are both needed":          {Destination: "/t", Source: dir, Options: []string{"bind"}, UIDMappings: m},
		"mounts[7]: mappings of IDs for one mount: uidMappings and gidMappings are both needed": {Destination: "/t", Source: dir, Options: []string{"bind", "idmap"}},
		"is not a map of IDs": {Destination: "/t", Source: dir, Options: []string{"bind"}, UIDMappings: append(m, m...), GIDMappings: m},
	} {
		r.spec.Mounts = append(slices.Clone(mounts[:len(mounts)-4]), bad)
		r.write()
		if res := r.moat("run", "-b", r.bundle, "c"); res.code == 0 || !strings.Contains(res.err, name) {
			t.Errorf("%v: %v", bad, res)
		}
	}
}
