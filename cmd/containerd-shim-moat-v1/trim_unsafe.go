//go:build !cgo

package main

import (
	"bytes"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A program that is linked dynamically has pages that look like the file's and are not, those that were relocated: there is no trim for it.
func init() {
	maps, _ := os.ReadFile("/proc/self/maps")
	trim = func() {
		for l := range bytes.Lines(maps) {
			var from, to uintptr
			var perms string
			if _, err := fmt.Sscanf(string(l), "%x-%x %s", &from, &to, &perms); err == nil && perms[1] == '-' && bytes.Contains(l, []byte(" /")) {
				_ = unix.Madvise(unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(nil), from)), to-from), unix.MADV_DONTNEED)
			}
		}
	}
}
