package container

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzBundle reads any config.json: no panic, and an error is one line that names the file.
func FuzzBundle(f *testing.F) {
	for _, s := range []string{
		`{"ociVersion":"1.0.2","process":{"args":["/bin/true"],"cwd":"/","user":{"uid":0,"gid":0},"env":["A=b"],"rlimits":[{"type":"RLIMIT_NOFILE","soft":1,"hard":1}]},"root":{"path":".","readonly":true}}`,
		`{"ociVersion":"1.0.2","process":{"args":["a"],"cwd":"/"},"root":{"path":"."},"mounts":[{"destination":"/proc","type":"proc"},{"destination":"/x","source":".","options":["rbind","ro"]},{"destination":"/t","type":"tmpfs","options":["size=1k","mode=1777"]}]}`,
		`{"ociVersion":"1.0.2","process":{"args":["a"],"cwd":"/"},"root":{"path":"."},"linux":{"resources":{"memory":{"limit":-1}},"namespaces":[{"type":"pid"}],"maskedPaths":["/x"],"sysctl":{"a":"b"},"seccomp":{"defaultAction":"SCMP_ACT_ALLOW"}},"hooks":{"prestart":[{"path":"/x"}]}}`,
		`{"ociVersion":1}`, `[]`, `{`, ``,
	} {
		f.Add(s)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, config string) {
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o644); err != nil {
			t.Fatal(err)
		}
		o, err := LoadBundle(t.TempDir(), dir, "x", func(string) {})
		switch {
		case err == nil:
			if o.Spec == nil || len(o.Spec.Process.Args) == 0 || o.Spec.Process.Cwd[0] != '/' {
				t.Fatalf("accepted %+v", o.Spec)
			}
		case !strings.HasPrefix(err.Error(), dir):
			t.Fatalf("the error does not name the file: %v", err)
		}
	})
}
