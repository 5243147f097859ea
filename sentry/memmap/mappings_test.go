package memmap

import (
	"math/rand"
	"testing"

	"gvisor.dev/gvisor/pkg/hostarch"
)

type fakeSpace struct{ Space }

const page = hostarch.PageSize

func pages(start, n int) hostarch.AddrRange {
	return hostarch.AddrRange{Start: hostarch.Addr(start * page), End: hostarch.Addr((start + n) * page)}
}

// TestMappings compares with a table of pages.
func TestMappings(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	for range 50 {
		var m Mappings
		ms := &fakeSpace{}
		var table [64]int // the page of the object at each address, plus 1
		for range 300 {
			at, n, off := r.Intn(56), 1+r.Intn(8), r.Intn(16)
			// As MAP_FIXED does it: the new one is entered, then what was there goes, run by run.
			add := r.Intn(3) > 0
			if add {
				m.Add(ms, pages(at, n), uint64(off*page), true)
			}
			for i := at; i < at+n; {
				k := i + 1
				for k < at+n && table[k] == table[k-1]+1 && table[i] != 0 {
					k++
				}
				if table[i] != 0 {
					m.Remove(ms, pages(i, k-i), uint64((table[i]-1)*page), true)
				}
				for ; i < k; i++ {
					table[i] = 0
				}
			}
			if add {
				for i := range n {
					table[at+i] = off + i + 1
				}
			}
			for o := range 24 {
				want, got := map[hostarch.Addr]bool{}, map[hostarch.Addr]bool{}
				for i, v := range table {
					if v == o+1 {
						want[hostarch.Addr(i*page)] = true
					}
				}
				for _, p := range m.Find(FileRange{Start: uint64(o * page), End: uint64((o + 1) * page)}) {
					if p.Space != ms || p.Range.Length() != page || got[p.Range.Start] {
						t.Fatalf("Find(page %d): %v", o, p)
					}
					got[p.Range.Start] = true
				}
				if len(want) != len(got) {
					t.Fatalf("page %d is mapped at %v, not %v", o, got, want)
				}
				for a := range want {
					if !got[a] {
						t.Fatalf("page %d is mapped at %v, not %v", o, got, want)
					}
				}
			}
		}
		for i, v := range table {
			if v != 0 {
				m.Remove(ms, pages(i, 1), uint64((v-1)*page), true)
			}
		}
		if !m.Empty() || m.Writable() {
			t.Fatal("something is left of what was removed")
		}
	}
}

// BenchmarkMappings: an operation is one of 60,000 mappings of one page entered and taken out again.
func BenchmarkMappings(b *testing.B) {
	ms := &fakeSpace{}
	for i := 0; i < b.N; {
		var m Mappings
		n := min(60000, b.N-i)
		for k := n; k > 0; k-- {
			m.Add(ms, pages(k, 1), 0, false)
		}
		for k := range n {
			m.Remove(ms, pages(k+1, 1), 0, false)
		}
		i += n
	}
}
