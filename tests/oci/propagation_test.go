package oci

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestFollows: what the host mounts below a volume's source after the start is seen by a container whose volume is a slave, as often as it changes, and can be unmounted
// when nobody in there uses it; a private volume has what was there before.
func TestFollows(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounts")
	}
	source := t.TempDir()
	if err := unix.Mount(source, source, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(source, unix.MNT_DETACH) })
	if err := unix.Mount("", source, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	below := filepath.Join(source, "below")
	if err := os.Mkdir(below, 0o755); err != nil {
		t.Fatal(err)
	}
	r := newRuntime(t, "sleep", "1000")
	r.spec.Mounts = append(r.spec.Mounts, specs.Mount{Destination: "/slave", Type: "bind", Source: source, Options: []string{"rbind", "rslave"}},
		specs.Mount{Destination: "/read", Type: "bind", Source: source, Options: []string{"rbind", "ro", "rslave"}},
		specs.Mount{Destination: "/private", Type: "bind", Source: source, Options: []string{"rbind", "rprivate"}})
	r.write()
	r.ok("run", "--detach", "--bundle", r.bundle, "a")
	in := func(script, want string) {
		t.Helper()
		if out := r.ok("exec", "a", "sh", "-c", script); out != want {
			t.Errorf("%s: %q, want %q", script, out, want)
		}
	}
	const look = "for d in slave read private; do echo $d /$d/below/*; done"
	for range 3 {
		in(look, "slave /slave/below/*\nread /read/below/*\nprivate /private/below/*\n")
		if err := unix.Mount("none", below, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Unmount(below, unix.MNT_DETACH) })
		if err := os.WriteFile(filepath.Join(below, "file"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		in(look, "slave /slave/below/file\nread /read/below/file\nprivate /private/below/*\n")
		in("echo x > /slave/below/file && cat /read/below/file; echo x 2>&- > /read/below/new || echo no", "x\nno\n")
		eventually(t, "the host unmounts it", func() bool { return unix.Unmount(below, 0) == nil })
	}
}
