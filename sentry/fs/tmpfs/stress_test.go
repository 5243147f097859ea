package tmpfs

import (
	"math/rand"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

// TestStress does everything at once from several goroutines; with -race it looks for races, always for lost pages and
// references (newEnv's cleanup).
func TestStress(t *testing.T) {
	e, fs, ns := newEnv(t)
	vfs.SetDentryLimit(50)
	defer vfs.SetDentryLimit(128 << 10)
	stop := time.Now().Add(2 * time.Second)
	var wg sync.WaitGroup
	for g := range int64(6) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := rand.New(rand.NewSource(g))
			name := func() string {
				s := ""
				for range 1 + r.Intn(3) {
					s += "/" + []string{"a", "b", "c", "l", ".."}[r.Intn(5)]
				}
				return s
			}
			buf := make([]byte, 9000)
			for time.Now().Before(stop) {
				a, b := name(), name()
				switch r.Intn(12) {
				case 0, 1:
					vfs.Mkdir(e, e.cwd, a, 0o755)
				case 2:
					vfs.Rmdir(e, e.cwd, a)
				case 3:
					vfs.Unlink(e, e.cwd, a)
				case 4:
					vfs.Rename(e, e.cwd, a, e.cwd, b, 0)
				case 5:
					vfs.Rename(e, e.cwd, a, e.cwd, b, unix.RENAME_EXCHANGE)
				case 6:
					vfs.Symlink(e, name(), e.cwd, a)
				case 7, 8:
					if f, err := vfs.Open(e, e.cwd, a, vfs.OpenOptions{Flags: unix.O_CREAT | unix.O_RDWR, Mode: 0o644}); err == nil {
						f.PWrite(e, usermem.Bytes(buf[:r.Intn(9000)]), int64(r.Intn(20000)), 0)
						f.PRead(e, usermem.Bytes(buf), 0, 0)
						f.Truncate(e, int64(r.Intn(9000)))
						vfs.PathString(e, e.root, f.Path())
						f.DecRef()
					}
				case 9:
					if f, err := vfs.Open(e, e.cwd, a, vfs.OpenOptions{Flags: unix.O_DIRECTORY}); err == nil {
						f.ReadDir(e, func(vfs.Dirent) error { return nil })
						f.DecRef()
					}
				case 10:
					if p, err := vfs.Resolve(e, e.cwd, a, vfs.Directory); err == nil {
						if r.Intn(2) == 0 {
							vfs.MountFS(New(fs.mem, Options{}), p, "x", "", 0)
						} else {
							vfs.Unmount(e, p, unix.MNT_DETACH)
						}
						p.DecRef()
					}
				case 11:
					if p, err := vfs.Resolve(e, e.cwd, a, 0); err == nil {
						vfs.Link(e, p, e.cwd, b)
						p.DecRef()
					}
					vfs.Shrink(3, nil)
					ns.Mounts(e.root)
				}
			}
		}()
	}
	wg.Wait()
	t.Log(fs.inodes.Load(), "inodes")
}
