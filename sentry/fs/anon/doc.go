// Package anon has the files that live on no file system: eventfd, epoll, timerfd, signalfd, inotify.
//
// Locks: each file's mu. Epoll.mu is held over Readiness and registration of the files it watches; those of epolls that
// watch each other are taken along the chain, which loopMu keeps free of cycles. Epoll.readyMu, eventfd's, timer's and
// inotify's mu are leaves: they are taken by callbacks under a wait queue's lock. No queue is notified with a mu held, but for timer.mu.
package anon

import (
	"moat/sentry/usermem"
	"moat/sentry/vfs"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/waiter"
)

var le = hostarch.ByteOrder

// file is what the types here embed: they have no position, but lseek(2) does not mind (noop_llseek).
type file struct{ vfs.Waitable }

func newFile() file { return file{vfs.Waitable{Waiters: &waiter.Queue{}}} }

// NoopSeek implements vfs.NoopSeeker.
func (file) NoopSeek() {}

// putWord copies out v as the 8 bytes that a counter file's read returns.
func putWord(dst usermem.IOSequence, v uint64) (int64, error) {
	var b [8]byte
	le.PutUint64(b[:], v)
	n, err := dst.CopyOut(b[:])
	return int64(n), err
}

const (
	oCloexec  = unix.O_CLOEXEC
	oNonblock = unix.O_NONBLOCK
)
