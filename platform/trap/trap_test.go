package trap

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moat/platform/platformtest"
	"moat/platform/stub"
)

func TestPlatform(t *testing.T)      { platformtest.Run(t, New) }
func BenchmarkPlatform(b *testing.B) { platformtest.Bench(b, New) }

// TestBells: somebody waits at the bell of each CPU that guests may run on, whichever they are.
func TestBells(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	defer unix.SchedSetaffinity(0, &all)
	for c := range len(all) * 64 {
		if !all.IsSet(c) {
			continue
		}
		var one unix.CPUSet
		one.Set(c)
		if err := unix.SchedSetaffinity(0, &one); err != nil {
			t.Fatal(err)
		}
		pl, err := New()
		if err != nil {
			t.Fatal(err)
		}
		bell := &pl.(*Platform).Bells().Bell[c%stub.NumBells]
		for start := time.Now(); !bell.Asleep(); time.Sleep(time.Millisecond) {
			if time.Since(start) > 30*time.Second {
				t.Fatalf("nobody waits at the bell of CPU %d", c)
			}
		}
		pl.Close()
	}
}
