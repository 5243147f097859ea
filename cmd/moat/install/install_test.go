package install

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func read(t *testing.T, f string) string {
	t.Helper()
	b, err := os.ReadFile(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// changes calls f and wants it to report whether the file changed.
func changes(t *testing.T, want bool, f func() (bool, error)) {
	t.Helper()
	got, err := f()
	if err != nil || got != want {
		t.Errorf("changed %v, %v; want %v", got, err, want)
	}
}

func TestDocker(t *testing.T) {
	f := filepath.Join(t.TempDir(), "etc", "daemon.json")
	add := func() (bool, error) { return Docker(f, "moat", "/bin/moat", []string{"--platform=ptrace"}, false) }
	changes(t, true, add)
	changes(t, false, add)
	old := `{"log-level": "warn", "runtimes": {"other": {"path": "/x"}}, "big": 12345678901234567890}`
	os.WriteFile(f, []byte(old), 0o600)
	os.Chmod(f, 0o600)
	changes(t, true, add)
	changes(t, false, add)
	s := read(t, f)
	for _, w := range []string{`"log-level": "warn"`, `"other"`, `12345678901234567890`, `"path": "/bin/moat"`, `"--platform=ptrace"`} {
		if !strings.Contains(s, w) {
			t.Errorf("no %s in %s", w, s)
		}
	}
	if fi, _ := os.Stat(f); fi.Mode().Perm() != 0o600 {
		t.Errorf("the mode became %v", fi.Mode())
	}
	if read(t, f+backup) != old {
		t.Error("the copy is not what was there")
	}
	changes(t, true, func() (bool, error) { return Docker(f, "moat", "/bin/moat", nil, true) })
	changes(t, true, func() (bool, error) { return RemoveDocker(f, "moat") })
	changes(t, false, func() (bool, error) { return RemoveDocker(f, "moat") })
	if s := read(t, f); strings.Contains(s, "moat") || !strings.Contains(s, `"other"`) {
		t.Errorf("afterwards: %s", s)
	}
	for _, bad := range []string{"{", `{"runtimes": 1}`, `[1]`} {
		os.WriteFile(f, []byte(bad), 0o644)
		if _, err := add(); err == nil || read(t, f) != bad {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestContainerd(t *testing.T) {
	f := filepath.Join(t.TempDir(), "config.toml")
	add := func() (bool, error) { return Containerd(f, "moat", "/bin/moat") }
	old := "# mine\nversion = 2\n\n[grpc]\n  address = \"/run/x\" # keep"
	os.WriteFile(f, []byte(old), 0o644)
	changes(t, true, add)
	changes(t, false, add)
	s := read(t, f)
	if !strings.HasPrefix(s, old+"\n") || !strings.Contains(s, `[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.moat.options]`) || !strings.Contains(s, `BinaryName = "/bin/moat"`) {
		t.Errorf("%s", s)
	}
	changes(t, true, func() (bool, error) { return Containerd(f, "moat", "/other/moat") })
	if strings.Count(read(t, f), "BinaryName") != 1 {
		t.Errorf("%s", read(t, f))
	}
	// With the shim beside moat.
	shim := filepath.Join(filepath.Dir(f), Shim)
	os.WriteFile(shim, nil, 0o755)
	changes(t, true, func() (bool, error) { return Containerd(f, "moat", filepath.Join(filepath.Dir(f), "moat")) })
	if s := read(t, f); !strings.Contains(s, `runtime_type = "io.containerd.moat.v1"`) || !strings.Contains(s, `runtime_path = "`+shim+`"`) || strings.Contains(s, "BinaryName") {
		t.Errorf("%s", s)
	}
	changes(t, true, func() (bool, error) { return RemoveContainerd(f, "moat") })
	changes(t, false, func() (bool, error) { return RemoveContainerd(f, "moat") })
	if read(t, f) != old+"\n" {
		t.Errorf("afterwards: %s", read(t, f))
	}
	for _, bad := range []string{"[x]\nversion = 2\n", "version = 1\n", "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.moat]\n", "# begin runtime moat (moat install)\n"} {
		os.WriteFile(f, []byte(bad), 0o644)
		if _, err := add(); err == nil || read(t, f) != bad {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
