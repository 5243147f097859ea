package stub

import "golang.org/x/sys/unix"

// CPUs are those that the sandbox was started on, once New was called.
var CPUs unix.CPUSet

// CPU is the CPU that the caller runs on, or just did.
func CPU() int

// Pin lets a thread run on one CPU only, or on all of CPUs if cpu is negative. Where it fails all is only slower.
func Pin(tid, cpu int) bool {
	set := CPUs
	if cpu >= 0 {
		set.Zero()
		set.Set(cpu)
	}
	return unix.SchedSetaffinity(tid, &set) == nil
}

// PinOff keeps a thread off one of CPUs; -1 lets it run on all.
func PinOff(tid, cpu int) bool {
	set := CPUs
	if cpu >= 0 {
		set.Clear(cpu)
	}
	return unix.SchedSetaffinity(tid, &set) == nil
}
