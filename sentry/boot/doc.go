// Package boot builds the kernel inside the sandbox: memory, platform, file systems, first process, from an OCI spec that the command line
// sends over the control socket; then it waits and reports.
//
// Order matters. What needs the host (its /proc/cpuinfo, the memory file, the platform's first stub) is made before the
// seccomp filter is installed; nothing that the container brings (its files, its program) is touched before that.
//
// The control sockets speak JSON-RPC (package rpc); Session has the methods. There is the one of who started the sandbox, at whose end the
// sandbox ends unless Detach was called, and those accepted on ListenFD. Descriptors come along with the request that they are for (Exec).
// Create builds everything, with a first process that is ready to run; Start runs it. Add makes another container in the sandbox, with a gofer, namespaces and a
// control group of its own; it lives as long as the connection, and its end, even by its gofer's, is no other's. All that is asked about a container names it.
// The gofer's socket comes with the request too: nothing of that needs a host call beyond those of Exec.
//
// Faults: a panic ends the process with Go's message on standard error, of which the command line shows the first line. A gofer that is gone
// ends it with one line. Nothing is caught to go on.
//
// Locks: server.mu guards what Create sets, and is held for its whole length; container.startMu is held by Start; container.ending by who makes a process;
// sandbox.mu, Session.mu and conn.mu are leaves, but Session.mu of a connection that closes, which is held when it ends its container.
package boot
