package spans

import (
	"math/rand"
	"testing"
)

// TestModel compares a Set with an array of pages under random inserts, splits, removals and gap searches.
func TestModel(t *testing.T) {
	const N = 4096
	r := rand.New(rand.NewSource(1))
	var s Set[int]
	model := make([]int, N)
	noGuard := func(*Span[int]) uint64 { return 0 }
	for step := 1; step < 60000; step++ {
		a := uint64(r.Intn(N - 1))
		b := min(a+1+uint64(r.Intn(4)), N)
		switch r.Intn(4) {
		case 0, 1:
			if s.Free(a, b) {
				s.Insert(Span[int]{a, b, step})
				for i := a; i < b; i++ {
					model[i] = step
				}
			}
		case 2:
			it := s.Find(a)
			for s.Ok(it) && s.At(it).Start < b {
				if s.At(it).Start < a {
					it = s.Split(it, a)
					continue
				}
				if s.At(it).End > b {
					it, _ = s.Prev(s.Split(it, b))
				}
				it = s.Remove(it)
			}
			for i := a; i < b; i++ {
				model[i] = 0
			}
		case 3:
			size := uint64(1 + r.Intn(12))
			lo, hi := uint64(r.Intn(N/2)), uint64(N/2+r.Intn(N/2))
			got, ok := s.GapDown(lo, hi, size, noGuard)
			up, upOK := s.GapUp(lo, hi, size, noGuard)
			want, wantOK := uint64(0), false
			wantUp := uint64(0)
			run := uint64(0)
			for i := lo; i < hi; i++ {
				if model[i] != 0 {
					run = 0
					continue
				}
				if run++; run >= size {
					if !wantOK {
						wantUp = i + 1 - size
					}
					want, wantOK = i+1-size, true
				}
			}
			if ok != wantOK || got != want || upOK != wantOK || up != wantUp {
				t.Fatalf("step %d gap %d in [%d,%d): down %d %v up %d %v, want %d %d %v", step, size, lo, hi, got, ok, up, upOK, want, wantUp, wantOK)
			}
		}
		if step%500 == 0 {
			check(t, &s, model)
		}
	}
}

func check(t *testing.T, s *Set[int], model []int) {
	n, at := 0, uint64(0)
	for it := s.First(); s.Ok(it); it = s.Next(it) {
		sp := s.At(it)
		for ; at < sp.Start; at++ {
			if model[at] != 0 {
				t.Fatalf("page %d missing", at)
			}
		}
		for ; at < sp.End; at++ {
			if model[at] != sp.Val || s.Lookup(at) == nil || s.Lookup(at).Val != sp.Val {
				t.Fatalf("page %d is %d, want %d", at, sp.Val, model[at])
			}
		}
		n++
	}
	if n != s.Len() {
		t.Fatalf("Len %d, counted %d", s.Len(), n)
	}
}

func BenchmarkInsertDown100k(b *testing.B) {
	for b.Loop() {
		var s Set[[6]uint64]
		for i := uint64(100000); i > 0; i-- {
			s.Insert(Span[[6]uint64]{Start: i * 2, End: i*2 + 1})
		}
	}
}
