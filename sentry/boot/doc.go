// Package boot builds the kernel inside the sandbox: memory, platform, file systems, first process, from an OCI spec that the command line
// sends over the control socket; then it waits and reports.
//
// Order matters. What needs the host (its /proc/cpuinfo, the memory file, the platform's first stub) is made before the
// seccomp filter is installed; nothing that the container brings (its files, its program) is touched before that.
//
// The control socket speaks net/rpc with the JSON codec: Start, Wait, Signal, Resize, Stacks. When it closes, the command line
// is gone and the sandbox ends.
//
// Faults: a panic ends the process with Go's message on standard error, of which the command line shows the first line. A gofer that is gone
// ends it with one line. Nothing is caught to go on.
//
// Locks: Sandbox.mu guards what Start sets; it is held by Start for its whole length.
package boot
