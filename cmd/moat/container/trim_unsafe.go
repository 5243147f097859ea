package container

import (
	"bytes"
	"fmt"
	"os"
	"runtime/debug"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// trimmer returns a function that gives the program's pages that cannot be written to back to the host, from whose page cache they come back: start-up and garbage
// collections touch most, and the work in between few. It touches few itself: the mappings are read from /proc now, while there is one.
func trimmer() func() {
	var program [][]byte
	maps, _ := os.ReadFile("/proc/self/maps")
	for l := range bytes.Lines(maps) {
		var from, to uintptr
		var perms string
		if _, err := fmt.Sscanf(string(l), "%x-%x %s", &from, &to, &perms); err == nil && (perms == "r-xp" || perms == "r--p") && bytes.Contains(l, []byte(" /")) {
			program = append(program, unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(nil), from)), to-from))
		}
	}
	return func() {
		for _, p := range program {
			_ = unix.Madvise(p, unix.MADV_DONTNEED)
		}
	}
}

// trimForGood has a process that from now on waits, and allocates next to nothing, give back the program a moment later. Going by a percentage, the runtime would
// collect garbage every two minutes, however idle, and touch it again.
func trimForGood() {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(32 << 20)
	time.AfterFunc(500*time.Millisecond, trimmer())
}
