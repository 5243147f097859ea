package memory

import (
	"math/rand"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"moat/sentry/memmap"
)

func newFile(t testing.TB, limit uint64) *File {
	f, err := New(-1, limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// TestAllocator: pages are handed out once, zeroed when asked, and given back to the host in the end.
func TestAllocator(t *testing.T) {
	f := newFile(t, 256<<20)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := rand.New(rand.NewSource(int64(g)))
			var mine []memmap.FileRange
			for range 20000 {
				if len(mine) > 0 && (r.Intn(2) == 0 || len(mine) > 60) {
					i := r.Intn(len(mine))
					fr := mine[i]
					b := f.Bytes(fr.Start, fr.Length())
					if b[0] != byte(g+1) || b[len(b)-1] != byte(g+1) {
						t.Errorf("page at %#x was overwritten", fr.Start)
						return
					}
					f.DecRef(fr)
					mine[i] = mine[len(mine)-1]
					mine = mine[:len(mine)-1]
					continue
				}
				n := uint64(1+r.Intn(64)) * PageSize
				if r.Intn(50) == 0 {
					n = HugePage
				}
				var fr memmap.FileRange
				var err error
				switch r.Intn(3) {
				case 0:
					fr, err = f.Allocate(n, true)
				case 1:
					fr, err = f.Root().AllocateIn(uint64(r.Intn(512))<<PageShift, 0, n, true)
				case 2:
					if len(mine) == 0 {
						continue
					}
					off := mine[r.Intn(len(mine))].End
					n = f.Root().AllocateAt(off, n, true)
					fr = memmap.FileRange{Start: off, End: off + n}
				}
				if err == unix.ENOMEM || fr.Length() == 0 {
					continue
				}
				b := f.Bytes(fr.Start, fr.Length())
				if !allZero(b) {
					t.Errorf("pages at %#x are not zero", fr.Start)
					return
				}
				b[0], b[len(b)-1] = byte(g+1), byte(g+1)
				mine = append(mine, fr)
			}
			for _, fr := range mine {
				f.DecRef(fr)
			}
		}()
	}
	wg.Wait()
	if f.Used() != 0 {
		t.Errorf("%d bytes in use at the end", f.Used())
	}
	var st unix.Stat_t
	for range 100 {
		if unix.Fstat(f.fd, &st); st.Blocks == 0 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if st.Blocks != 0 {
		t.Errorf("host still holds %d KiB", st.Blocks/2)
	}
}

func TestLimit(t *testing.T) {
	f := newFile(t, 16<<20)
	var got []memmap.FileRange
	for {
		fr, err := f.Allocate(3<<20, false)
		if err != nil {
			break
		}
		got = append(got, fr)
	}
	if f.Used() != 16<<20 {
		t.Errorf("%d bytes in use at the limit", f.Used())
	}
	f.IncRef(got[0])
	for _, fr := range got {
		f.DecRef(fr)
	}
	if f.Used() != got[0].Length() || f.Sole(got[0]) != got[0].Length() {
		t.Errorf("%d bytes in use", f.Used())
	}
	f.DecRef(got[0])
}

func BenchmarkAllocFree64K(b *testing.B) {
	f := newFile(b, 1<<30)
	for b.Loop() {
		fr, _ := f.Allocate(64<<10, false)
		f.DecRef(fr)
	}
}

// TestBlocksForgotten: runs that come and go use the same offsets again, and what is known of their blocks goes with them.
func TestBlocksForgotten(t *testing.T) {
	f := newFile(t, 512<<20)
	run := func() (got []memmap.FileRange) {
		for range 20 {
			fr, err := f.Root().AllocateIn(0, 0, HugePage, true)
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				fr.End += f.Root().AllocateAt(fr.End, HugePage, true)
			}
			got = append(got, fr)
		}
		return got
	}
	for round := range 100 {
		a, b := run(), run()
		for _, fr := range append(a, b...) {
			f.DecRef(fr)
		}
		if round%10 == 0 {
			time.Sleep(5 * time.Millisecond)
		}
	}
	known := func() (n int) {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, b := range *f.tab.Load() {
			if b != nil {
				n++
			}
		}
		return n
	}
	for range 500 {
		if known() == 0 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if n, most := len(f.holes), 160+2*spareBlocks; n != f.next-1 || f.next > most {
		t.Errorf("%d blocks were used, %d are forgotten; not over %d are needed", f.next-1, n, most)
	}
}

// TestAccounts: what one may not exceed, another may; pages are their payer's until they are free, whoever frees them.
func TestAccounts(t *testing.T) {
	f := newFile(t, 64<<20)
	a, err := f.NewAccount()
	if err != nil {
		t.Fatal(err)
	}
	b, _ := f.NewAccount()
	a.SetLimit(1 << 20)
	var runs []memmap.FileRange
	for {
		fr, err := a.Allocate(100<<10, true)
		if err != nil {
			break
		}
		runs = append(runs, fr)
	}
	own, err := f.Allocate(2<<20, true)
	if err != nil {
		t.Fatal(err)
	}
	other, err := b.AllocateIn(5*PageSize, 0, 3*PageSize, true)
	if err != nil {
		t.Fatal(err)
	}
	next := b.AllocateAt(other.End, 2*PageSize, true)
	if a.Used() != 1<<20 || a.Exhausted() != a || a.Peak() != 1<<20 || b.Used() != 3*PageSize+next || next == 0 || f.Root().Used() != 2<<20 || f.Used() != 3<<20+b.Used() {
		t.Errorf("in use: %d, %d, %d and %d in all", a.Used(), b.Used(), f.Root().Used(), f.Used())
	}
	other.End += next
	f.IncRef(runs[0])
	for _, fr := range append(runs, own, other) {
		f.DecRef(fr)
	}
	if a.Used() != runs[0].Length() || b.Used() != 0 || a.Exhausted() != nil {
		t.Errorf("in use, with one run left: %d, %d", a.Used(), b.Used())
	}
	a.End()
	b.End()
	for range maxAccounts - 2 { // the root's, and that of the run
		if _, err := f.NewAccount(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.NewAccount(); err != unix.ENOSPC {
		t.Errorf("one too many: %v", err)
	}
	f.DecRef(runs[0])
	if _, err := f.NewAccount(); err != nil || f.Used() != 0 {
		t.Errorf("when the last run is free: %v, %d in use", err, f.Used())
	}
	// Who still has an account that was given up does not charge the one that got its ID.
	heir := f.accounts[b.id].Load()
	if heir == b {
		t.Fatal("no other account has the ID")
	}
	late, err := b.Allocate(3*PageSize, true)
	if err != nil || b.Used() != 0 || heir.Used() != 0 || f.Root().Used() != late.Length() {
		t.Errorf("by an account that was given up: %v, %d, %d, %d", err, b.Used(), heir.Used(), f.Root().Used())
	}
	if f.DecRef(late); heir.Used() != 0 || f.Used() != 0 {
		t.Errorf("when that is free: %d, %d", heir.Used(), f.Used())
	}
}
