// Package container is a container's life on the host: it starts the gofer and the sentry, each in namespaces of its own, tells the
// sentry what to run, and passes signals, the terminal and the exit status.
//
// Both processes are this binary again (/proc/self/exe) with the hidden verbs `gofer` and `boot`, which call Gofer and Boot here. They
// inherit exactly the descriptors that they are given, and die with the process that started them (PDEATHSIG), as the sentry
// does when the control socket closes. The sentry is the init of its PID namespace: when it dies, every stub does.
//
// Two Linux rules shape the code: PDEATHSIG is about the thread that forked, so the caller of Start is locked to the main
// thread; and namespaces of a user namespace are only made after its maps are written, which os/exec sees to.
package container
