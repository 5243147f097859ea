// Package hostfd has the host's descriptors that a container's first process gets as standard input, output and error: pipes, sockets, files,
// and terminals that the container uses directly.
//
// A descriptor's status flags belong to whoever shares it outside, so O_NONBLOCK is never set on the host: transfers ask for no
// waiting one by one (RWF_NOWAIT), or look first where the host cannot do that (terminals). One goroutine waits for all of
// them with edge-triggered epoll and wakes who waits in the sandbox.
//
// A regular file's position is the host's, which others may share: a shell that goes on in the same file, moat's own log.
//
// A File does not change after Open but for its count of users and its waiter.Queue. Poller.mu, a leaf, guards the table of what is waited
// for. The first process' files are opened before the sentry's filter is in force (Same needs that); those of processes that come later, by
// `moat exec`, under it: fstat, fcntl(F_GETFL) and epoll_ctl are what Open calls.
package hostfd
