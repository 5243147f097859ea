// Package container is a container's life on the host: it starts the gofer and the sentry, each in namespaces of its own, tells the
// sentry what to run, and passes signals, the terminal and the exit status. It is the command line's library; a shim can be built on it.
//
// Both processes are this binary again (/proc/self/exe) with the hidden verbs `gofer` and `boot`, which call Gofer and Boot here. They
// inherit exactly the descriptors that they are given. The sentry is the init of its PID namespace: when it dies, every stub does. The gofer ends when
// the sentry's end of their socket closes, the sentry when the gofer is gone.
//
// # Two kinds of life
//
// What `moat do` starts dies with it: PDEATHSIG, and a control socket (a socket pair) whose end ends the sentry.
//
// A container of the OCI verbs (Config.Standalone) has a directory, ROOT/ID, and outlives the command line. Until `create` is done, the socket pair is a
// lifeline all the same: a create that is killed takes the sandbox with it. Then Session.Detach cuts it, and whoever comes later connects to
// control.sock in the directory, whose listening end the sentry was born with. Orphaned, the sentry is adopted by init or by a subreaper: containerd's
// shim, which waits for the pid that the pid file names. So the sentry's own exit status is the first process', 128+n for signal n (the init of a PID
// namespace cannot kill itself), and it writes the same into exit.json for `state`. For a process of `exec --detach` a keeper stands on the host:
// it ends with the process' status, passes on what signals can be passed on, and when it is killed, its connection closes and the sentry kills the process.
//
// # Pods
//
// A container that is in another's sandbox has no sentry. `create` starts its gofer and a keeper, which asks the sandbox's sentry, over that one's control
// socket, for a container whose gofer's socket and first descriptors come along (boot.Session.Add). The sentry ends the container when that connection closes, so
// that the keeper is to it what the sentry is to others: Container.Init. Until `create` is done, the keeper ends with it: its orders come through a pipe, and the
// last is to live on. It writes the exit status into exit.json, and ends with it. Pause is the sentry's affair in a pod, as the host cannot tell its containers apart.
//
// Engines' container:ID, a namespace that is named by the process of a container that is no pod's, is the same: from then on that one's sandbox is one that
// others are in (State.Shared).
//
// # State
//
// state.json is replaced whole (temporary file, fsync, rename) by who holds the flock of the directory: verbs that change a container take it, and
// after taking it check that the directory is still the one of that name. Verbs that only look do not wait. What a verb is about to make (cgroup) or has
// just made (processes) is written down at once, so that `delete --force` finds it whenever the verb is killed. Processes are named by number and
// start time, and signalled by pidfd.
//
// Two Linux rules shape the code: PDEATHSIG is about the thread that forked, so the caller of Start is locked to the main
// thread; and namespaces of a user namespace are only made after its maps are written, which os/exec sees to.
package container
