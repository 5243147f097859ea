// Package hostfd has the host's descriptors that a container's first process gets as standard input, output and error: pipes, sockets, files,
// and terminals that the container uses directly.
//
// A descriptor's status flags belong to whoever shares it outside, so O_NONBLOCK is never set on the host: transfers ask for no
// waiting one by one (RWF_NOWAIT), or look first where the host cannot do that (terminals). One goroutine waits for all of
// them with edge-triggered epoll and wakes who waits in the sandbox.
//
// A regular file's position is the sandbox's while it is open, and is given back to the host when it is closed.
//
// The package has no locks: a File does not change after Open but for its count of users and its waiter.Queue. Everything that makes
// descriptors, or asks for what a filter should not allow, is done in NewPoller, Open and Same, before the sentry's filter is in force.
package hostfd
