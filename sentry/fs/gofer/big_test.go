package gofer

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moat/sentry/vfs"
)

// TestBigDirectory: 20,000 entries are listed, looked up and unlinked; the log says how long it took, which should be linear.
func TestBigDirectory(t *testing.T) {
	if testing.Short() {
		t.Skip()
	}
	fs, dir, _ := mount(t, false)
	for _, n := range []int{2000, 20000} {
		sub := filepath.Join(dir, fmt.Sprint(n))
		os.Mkdir(sub, 0o700)
		for i := range n {
			fd, err := unix.Open(filepath.Join(sub, fmt.Sprintf("file-%d", i)), unix.O_CREAT|unix.O_WRONLY, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			unix.Close(fd)
		}
		d := lookup(t, fs.root, fmt.Sprint(n))
		start := time.Now()
		names := list(t, &dirFile{inode: d}, 500)
		listed := time.Since(start)
		if len(names) != n+2 {
			t.Fatal(len(names))
		}
		start = time.Now()
		f := &dirFile{inode: d}
		var off int64
		for done := false; !done; {
			done = true
			k := 0
			off, _ = f.ReadDir(bg, nil, off, func(e vfs.Dirent) error {
				if done, k = false, k+1; k > 500 {
					return unix.EINVAL
				}
				if e.Type == unix.DT_REG {
					attr(t, lookup(t, d, e.Name))
				}
				return nil
			})
		}
		looked := time.Since(start)
		start = time.Now()
		for _, name := range names[2:] {
			i := lookup(t, d, name)
			if err := d.Unlink(bg, name, i); err != nil {
				t.Fatal(err)
			}
			i.Evict()
		}
		unlinked := time.Since(start)
		t.Logf("%d: listed in %v, with attributes %v, unlinked %v", n, listed, looked, unlinked)
	}
}
