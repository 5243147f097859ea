// Package boot builds the kernel inside the sandbox: memory, platform, file systems, first process, from an OCI spec that the command line
// sends over the control socket; then it waits and reports.
//
// Order matters. What needs the host (its /proc/cpuinfo, the memory file, the platform's first stub) is made before the
// seccomp filter is installed; nothing that the container brings (its files, its program) is touched before that.
//
// The control sockets speak net/rpc with the JSON codec; Session has the methods. There is the one of who started the sandbox, at whose end the
// sandbox ends unless Detach was called, and those accepted on ListenFD. Descriptors come along with the request that they are for (Exec).
// Create builds everything, with a first process that is ready to run; Start runs it.
//
// Faults: a panic ends the process with Go's message on standard error, of which the command line shows the first line. A gofer that is gone
// ends it with one line. Nothing is caught to go on.
//
// Locks: server.mu guards what Create sets, and is held for its whole length; sandbox.mu is held by Start; Session.mu and conn.mu are leaves.
package boot
