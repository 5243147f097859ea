package oci

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// TestMany starts many containers at once: all run, each is seen, and of none is a process, a mount, a cgroup or a file left.
func TestMany(t *testing.T) {
	n := 20
	if os.Getenv("MOAT_LONG") != "" {
		n = 100
	}
	r := newRuntime(t, "sleep", "1000")
	r.spec.Linux.CgroupsPath = ""
	r.write()
	name := filepath.Base(filepath.Dir(r.root))
	all := func(verb ...string) {
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				if res := r.moat(append(verb, fmt.Sprint(name, "-", i))...); res.code != 0 {
					t.Errorf("%v of container %d: %v", verb, i, res)
				}
			})
		}
		wg.Wait()
	}
	all("run", "-d", "-b", r.bundle)
	var list []struct{ ID, Status string }
	if res := r.moat("list", "-f", "json"); json.Unmarshal([]byte(res.out), &list) != nil || len(list) != n {
		t.Errorf("%d containers are listed, not %d: %v", len(list), n, res)
	}
	for _, c := range list {
		if c.Status != "running" {
			t.Errorf("%s is %s", c.ID, c.Status)
		}
	}
	all("delete", "--force")
	eventually(t, "the end of every process of "+r.root, func() bool { return processesOf(r.root) <= 0 })
	if b, err := os.ReadFile("/proc/self/mountinfo"); err != nil || bytes.Contains(b, []byte(r.root)) || bytes.Contains(b, []byte(r.bundle)) {
		t.Errorf("mounts are left: %s, %v", b, err)
	}
	_ = filepath.WalkDir("/sys/fs/cgroup", func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.HasPrefix(d.Name(), name) {
			t.Errorf("the cgroup %s is left", p)
		}
		return nil
	})
}
