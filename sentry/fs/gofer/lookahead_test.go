package gofer

import (
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moat/sentry/vfs"
)

// rowDir makes a directory with n files and a few things of other kinds in it, and returns its path and all names in the host's order.
func rowDir(t *testing.T, dir string, n int) (string, []string) {
	d := filepath.Join(dir, "row")
	os.MkdirAll(filepath.Join(d, "sub"), 0o755)
	os.Symlink("f000", filepath.Join(d, "link"))
	unix.Mkfifo(filepath.Join(d, "pipe"), 0o600)
	for i := range n {
		if err := os.WriteFile(filepath.Join(d, fmt.Sprintf("f%03d", i)), []byte{1}, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		t.Fatal(err)
	}
	return d, names
}

// requestsOf is how many requests fn takes, at best: for a while after a change some are needed to be sure.
func requestsOf(fs *FS, fn func()) uint64 {
	least := ^uint64(0)
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		before := fs.c.Requests.Load()
		fn()
		least = min(least, fs.c.Requests.Load()-before)
		if least < 10 {
			break
		}
	}
	return least
}

// TestRow: names of a shared mount that are looked up in a row, in the order of the listing or of the alphabet, take few requests, the first time and when
// there are too many for the descriptors; and what the host does to those that were looked up ahead is seen.
func TestRow(t *testing.T) {
	const n = 200
	for _, order := range []string{"listing", "alphabet"} {
		t.Run(order, func(t *testing.T) {
			fs, dir, _ := mount(t, true)
			e := newEnv(t, fs)
			d, names := rowDir(t, dir, n)
			if order == "alphabet" {
				slices.Sort(names)
			}
			all := func() {
				for _, name := range names {
					if got, want := e.look("/row/"+name), hostLook(filepath.Join(d, name)); got != want {
						t.Errorf("%s is %s, on the host %s", name, got, want)
					}
				}
			}
			time.Sleep(2 * tick)
			before := fs.c.Requests.Load()
			all()
			if made := fs.c.Requests.Load() - before; made > n/4 {
				t.Errorf("%d requests for %d new names", made, n)
			}
			if again := requestsOf(fs, all); again > 10 {
				t.Errorf("%d requests for %d known names", again, n)
			}
			fs.fds.max = 100
			fs.fds.shrink()
			fs.fds.shrink()
			if blind := requestsOf(fs, all); blind > n/4 {
				t.Errorf("%d requests for %d known names without descriptors", blind, n)
			}
			for round := range 30 {
				k := rand.Intn(n/2) + 10
				for _, name := range names[:k] {
					e.look("/row/" + name)
				}
				next := filepath.Join(d, names[k+1+rand.Intn(20)])
				switch round % 6 {
				case 0:
					os.WriteFile(d+"/../new", []byte("other"), 0o600)
					os.Rename(d+"/../new", next)
				case 1:
					os.Chmod(next, 0o700)
				case 2:
					os.Lchown(next, round, round)
				case 3:
					os.Remove(next)
				case 4:
					os.WriteFile(filepath.Join(d, fmt.Sprint("new", round)), nil, 0o600)
				case 5:
					os.Truncate(next, int64(round))
				}
				all()
			}
		})
	}
}

// TestRowOpens: files that are looked up in a row and opened come open; those that the host removes meanwhile are gone.
func TestRowOpens(t *testing.T) {
	const n = 200
	fs, dir, _ := mount(t, true)
	e := newEnv(t, fs)
	d, names := rowDir(t, dir, n)
	names = slices.DeleteFunc(names, func(s string) bool { return s[0] != 'f' })
	time.Sleep(2 * tick)
	open := func(name string) error {
		f, err := vfs.Open(e, e.root, "row/"+name, vfs.OpenOptions{})
		if err != nil {
			return err
		}
		defer f.DecRef()
		if s := e.read(f); s != "\x01" {
			t.Errorf("%s reads %q", name, s)
		}
		return nil
	}
	before := fs.c.Requests.Load()
	for _, name := range names {
		if err := open(name); err != nil {
			t.Fatal(name, err)
		}
	}
	if made := fs.c.Requests.Load() - before; made > n/2 {
		t.Errorf("%d requests for %d opens", made, n)
	}
	fs, _, _ = mountDir(t, dir, true)
	e = newEnv(t, fs)
	for i, name := range names {
		if i%9 == 5 {
			os.Remove(filepath.Join(d, name))
		}
		if err := open(name); i%9 == 5 && err != unix.ENOENT || i%9 != 5 && err != nil {
			t.Fatal(name, err)
		}
	}
}

// TestRowRaces: several look names up in a row that the host replaces at the same time. What was there before a look began, or something later, is what they find.
func TestRowRaces(t *testing.T) {
	fs, dir, _ := mount(t, true)
	e := newEnv(t, fs)
	d, names := rowDir(t, dir, 40)
	names = slices.DeleteFunc(names, func(s string) bool { return s[0] != 'f' })
	var sizes [40]atomic.Int64
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for !stop.Load() && !t.Failed() {
				for i, name := range names {
					before := sizes[i].Load()
					p, err := vfs.Resolve(e, e.root, "row/"+name, 0)
					var a vfs.Attr
					if err == nil {
						a, err = vfs.Stat(e, p)
						p.DecRef()
					}
					if err != nil || a.Size < before {
						t.Errorf("%s has %d (%v) after %d", name, a.Size, err, before)
					}
				}
			}
		})
	}
	for n := int64(2); n < 1500; n++ {
		i := rand.Intn(len(names))
		tmp, name := filepath.Join(dir, "tmp"), filepath.Join(d, names[i])
		if n%3 == 0 {
			os.Truncate(name, n)
		} else {
			os.WriteFile(tmp, nil, 0o600)
			os.Truncate(tmp, n)
			os.Rename(tmp, name)
		}
		sizes[i].Store(n)
		if n%50 == 0 {
			time.Sleep(2 * tick) // now and then a row has time to be found ahead
		}
	}
	stop.Store(true)
	wg.Wait()
}

// TestRowOrders: files of an exclusive mount that are opened in a row, in any of the orders, are opened ahead; those that are opened at random are not.
func TestRowOrders(t *testing.T) {
	const n = 300
	dir := t.TempDir()
	d, all := rowDir(t, dir, n)
	all = slices.DeleteFunc(all, func(s string) bool { return s[0] != 'f' })
	ino := func(name string) uint64 {
		var st unix.Stat_t
		unix.Lstat(filepath.Join(d, name), &st)
		return st.Ino
	}
	for order, sort := range map[string]func([]string){
		"listing":  func([]string) {},
		"alphabet": func(s []string) { slices.Sort(s) },
		"inode":    func(s []string) { slices.SortFunc(s, func(x, y string) int { return int(int64(ino(x) - ino(y))) }) },
		"none":     func(s []string) { rand.Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] }) },
	} {
		t.Run(order, func(t *testing.T) {
			fs, _, _ := mountDir(t, dir, false)
			e := newEnv(t, fs)
			if got, err := entries(e, "/row"); err != nil || got < n {
				t.Fatal(got, err)
			}
			names := slices.Clone(all)
			sort(names)
			before := fs.c.Requests.Load()
			for _, name := range names {
				f, err := vfs.Open(e, e.root, "row/"+name, vfs.OpenOptions{})
				if err != nil {
					t.Fatal(err)
				}
				f.DecRef()
			}
			made, few := fs.c.Requests.Load()-before, order != "none"
			if few && made > n/8 || !few && made < n/2 {
				t.Errorf("%d requests for %d opens", made, n)
			}
		})
	}
}

// TestRowChecks: directories whose names are doubted are checked together, and what the host changed in one of them is seen.
func TestRowChecks(t *testing.T) {
	const n = 200
	fs, dir, _ := mount(t, false)
	e := newEnv(t, fs)
	for i := range n {
		os.MkdirAll(filepath.Join(dir, fmt.Sprintf("row/d%03d", i)), 0o755)
	}
	aging.Store(true) // no doubts but ours
	defer aging.Store(false)
	walk := func() (sum int) {
		if _, err := entries(e, "/row"); err != nil {
			t.Fatal(err)
		}
		for i := range n {
			have, err := entries(e, fmt.Sprintf("/row/d%03d", i))
			if err != nil {
				t.Fatal(err)
			}
			sum += have
		}
		return sum
	}
	sum := walk()
	time.Sleep(2 * slack)
	Doubt()
	walk() // the times are old enough from now on
	for round := range 4 {
		for k := range round {
			os.WriteFile(filepath.Join(dir, fmt.Sprintf("row/d%03d/new%d", 50*k+13, round)), nil, 0o600)
		}
		sum += round
		Doubt()
		before := fs.c.Requests.Load()
		if got := walk(); got != sum {
			t.Errorf("round %d: %d entries, not %d", round, got, sum)
		}
		if made := fs.c.Requests.Load() - before; round == 0 && made > n/4 {
			t.Errorf("%d requests to check %d directories", made, n)
		}
		time.Sleep(2 * slack)
	}
}
