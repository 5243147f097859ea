package cgroup

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"moat/platform"
	"moat/sentry/kernel"
	"moat/sentry/memory"
	"moat/sentry/vfs"
)

// TestTwoMounts: groups that come and go by way of one mount leave no more behind in another that has looked at them than there may be groups at a time.
func TestTwoMounts(t *testing.T) {
	mfd, err := memory.Create()
	if err != nil {
		t.Fatal(err)
	}
	mf, err := memory.New(mfd, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	k, err := kernel.New(kernel.Config{Platform: struct{ platform.Platform }{}, Memory: mf, NumCPUs: 1})
	if err != nil {
		t.Fatal(err)
	}
	ctx := vfs.Background()
	one, two := New(k, k.Within(ctx)).Root().(*group), New(k, k.Within(ctx)).Root().(*group)
	for i := range 3 * kernel.CgroupsMax {
		name := fmt.Sprint("g", i)
		made, err := one.Mkdir(ctx, name, vfs.CreateOptions{Mode: 0o700})
		if err != nil {
			t.Fatal(err)
		}
		seen, err := two.Lookup(ctx, name)
		if err != nil || seen.Mode() != made.Mode() {
			t.Fatalf("%s: %v, %v", name, seen, err)
		}
		if err := one.Rmdir(ctx, name, made); err != nil {
			t.Fatal(err)
		}
		if _, err := two.Lookup(ctx, name); err != unix.ENOENT {
			t.Fatalf("%s was removed: %v", name, err)
		}
	}
	for i, h := range []*hierarchy{one.h, two.h} {
		h.mu.Lock()
		if n := len(h.groups); n > kernel.CgroupsMax+1 {
			t.Errorf("mount %d has %d groups", i, n)
		}
		h.mu.Unlock()
	}
}
