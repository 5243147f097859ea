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

// trimDelay is when a process that has started gives back what starting took.
const trimDelay = 500 * time.Millisecond

// trimLater lets this process, once, a moment after its start, give memory back to the host: what the heap holds beyond its objects, and the
// pages of the program itself, of which start-up and a garbage collection touch most and the work after them few. These come back from the host's page cache as they are
// needed. A process whose filter knows no madvise does neither later: it sees to its heap by itself and calls the function returned before it installs that.
//
// The program's mappings are read from /proc now, while there is one. Without it they stay.
func trimLater(now bool) (trimProgram func()) {
	maps, _ := os.ReadFile("/proc/self/maps")
	trimProgram = func() {
		for l := range bytes.Lines(maps) {
			var from, to uintptr
			var perms string
			if _, err := fmt.Sscanf(string(l), "%x-%x %s", &from, &to, &perms); err != nil || perms != "r-xp" && perms != "r--p" || !bytes.Contains(l, []byte(" /")) {
				continue
			}
			// Pages that are mapped private and cannot be written to are the file's.
			_ = unix.Madvise(unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(nil), from)), to-from), unix.MADV_DONTNEED)
		}
	}
	if !now {
		time.AfterFunc(trimDelay, func() {
			debug.FreeOSMemory()
			trimProgram()
		})
	}
	return trimProgram
}
