package oci

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDockerRemap: a daemon with --userns-remap: the container's root is another user on the host, whose the image and all that is written are.
func TestDockerRemap(t *testing.T) {
	if os.Getenv("MOAT_DOCKER") == "" {
		t.Skip("needs Docker: MOAT_DOCKER=1, or make oci")
	}
	shared := t.TempDir()
	ids := filepath.Join(t.TempDir(), "ids")
	for _, err := range []error{os.WriteFile(ids, []byte("daemon:100000:65536\n"), 0o644), os.Chmod(shared, 0o755), os.Chown(shared, 100000, 100000)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	d := &docker{}
	err := d.launch("mount --bind "+ids+" /etc/subuid && mount --bind "+ids+" /etc/subgid", "--userns-remap=daemon")
	if d.cmd != nil && d.cmd.Process != nil {
		defer d.stop(t)
	}
	if err != nil {
		t.Fatal(err)
	}
	const map0 = "         0     100000      65536"
	for _, c := range []struct {
		flags        []string
		script, want string
	}{
		{nil, "id -u; cat /proc/self/uid_map; stat -c %u:%g / /bin/busybox; echo x >/new && stat -c %u:%g /new", "0\n" + map0 + "\n0:0\n0:0\n0:0\n"},
		{[]string{"-u", "7:8"}, "id -u; stat -c %u /proc/$$; echo x 2>/dev/null >/new || echo no", "7\n7\nno\n"},
		{[]string{"-v", "/etc:/h"}, "stat -c %u:%g /h/passwd; echo x 2>/dev/null >/h/new || echo no", "65534:65534\nno\n"},
		{[]string{"-v", shared + ":/s"}, "stat -c %u:%g /s; echo x >/s/a && busybox chown 5:6 /s/a && stat -c %u:%g /s/a", "0:0\n5:6\n"},
		{[]string{"-v", "named:/n", "--tmpfs", "/t", "--read-only"}, "echo x >/n/a && echo x >/t/a && stat -c %u:%g /n/a /t/a; echo x 2>/dev/null >/new || echo ro", "0:0\n0:0\nro\n"},
		{[]string{"--userns", "host"}, "stat -c %u:%g /bin/busybox; grep -c 4294967295 /proc/self/uid_map", "100000:100000\n1\n"},
	} {
		script := "stat() { busybox stat \"$@\"; }; " + c.script
		if r := d.run(t, append(append([]string{"run", "--rm"}, c.flags...), "box", "sh", "-c", script)...); r.code != 0 || r.out != c.want {
			t.Errorf("%v %s: want %q: %v", c.flags, c.script, c.want, r)
		}
	}
	if u, g := owner(t, filepath.Join(shared, "a")); u != 100005 || g != 100006 {
		t.Errorf("a file that the container made is %d:%d's on the host", u, g)
	}
	id := d.start(t, "box", "sh", "-c", "echo a >/made; sleep 1000")
	if out := d.ok(t, "exec", id, "cat", "/proc/self/uid_map"); out != map0 {
		t.Errorf("exec: uid_map %q", out)
	}
	d.ok(t, "cp", ids, id+":/copied")
	if out := d.ok(t, "exec", "-u", "3", id, "sh", "-c", "id -u; busybox stat -c %u:%g /copied"); out != "3\n0:0" {
		t.Errorf("exec -u 3, of what docker cp wrote: %q", out)
	}
	eventually(t, "docker diff shows the file", func() bool { return strings.Contains(d.ok(t, "diff", id), "A /made") })
	d.ok(t, "commit", id, "again")
	if out := d.ok(t, "run", "--rm", "again", "busybox", "stat", "-c", "%u:%g", "/made"); out != "0:0" {
		t.Errorf("of a committed file the owner is %q", out)
	}
}
