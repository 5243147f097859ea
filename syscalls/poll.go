package syscalls

import (
	"math/bits"
	"slices"
	"sync"
	"time"

	"moat/sentry/kernel"
	"moat/sentry/linuxerr"
	"moat/sentry/vfs"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/marshal/primitive"
	"gvisor.dev/gvisor/pkg/waiter"
)

func init() {
	register(
		full(7, "poll", "ptr uint int", sysPoll),
		full(271, "ppoll", "ptr uint timespec sigset size", sysPpoll),
		full(23, "select", "int ptr ptr ptr ptr", sysSelect),
		full(270, "pselect6", "int ptr ptr ptr timespec ptr", sysPselect),
	)
}

// polled is one descriptor that is waited for.
type polled struct {
	file  *vfs.FileDescription
	fd    int32
	want  waiter.EventMask
	got   uint32
	entry waiter.Entry
}

// pollSet is a set of them, with buffers, reused so that a poll allocates nothing.
type pollSet struct {
	ps    []polled
	fds   []linux.PollFD
	words []uint64
	ch    chan struct{}
}

var pollSets = sync.Pool{New: func() any { return &pollSet{ch: make(chan struct{}, 1)} }}

func (s *pollSet) free() {
	select {
	case <-s.ch:
	default:
	}
	if cap(s.ps) <= 1024 && cap(s.words) <= 1024 {
		clear(s.ps)
		s.ps = s.ps[:0]
		pollSets.Put(s)
	}
}

// scan looks at every file and returns how many have something. A file that is gone or never was has POLLNVAL.
func (s *pollSet) scan() (n int) {
	for i := range s.ps {
		p := &s.ps[i]
		switch {
		case p.fd < 0:
			continue
		case p.file == nil:
			p.got = unix.POLLNVAL
		default:
			p.got = (p.file.Readiness(p.want) & p.want).ToLinux()
		}
		if p.got != 0 {
			n++
		}
	}
	return n
}

// open takes references to the files. One of O_PATH is there, but has none.
func (s *pollSet) open(t *kernel.Task) (all bool) {
	all = true
	for i := range s.ps {
		if p := &s.ps[i]; p.fd >= 0 {
			f, err := t.GetFileOrPath(p.fd)
			all = all && err == nil
			if err == nil && f.PathOnly() {
				f.DecRef()
				f = nil
			}
			p.file = f
		}
	}
	return all
}

func (s *pollSet) close(registered int) {
	for i := range s.ps {
		if p := &s.ps[i]; p.file != nil {
			if i < registered {
				p.file.EventUnregister(&p.entry)
			}
			p.file.DecRef()
			p.file = nil
		}
	}
}

// wait finds what there is, waiting until something is or deadline passes (zero: never; block false: not at all), and closes the files. ERESTARTSYS.
func (s *pollSet) wait(t *kernel.Task, block bool, deadline time.Time) (n int, err error) {
	registered := 0
	defer func() { s.close(registered) }()
	if n = s.scan(); n > 0 || !block {
		return n, nil
	}
	for ; registered < len(s.ps); registered++ {
		p := &s.ps[registered]
		if p.file == nil {
			continue
		}
		p.entry.Init(waiter.ChannelNotifier(s.ch), p.want)
		if err := p.file.EventRegister(&p.entry); err != nil {
			return 0, err
		}
	}
	for {
		if n = s.scan(); n > 0 {
			return n, nil
		}
		if err := t.BlockUntil(s.ch, deadline); err != nil {
			// What has come with a signal, be it the signal itself, goes first (do_poll).
			if n = s.scan(); n > 0 || err == unix.ETIMEDOUT {
				return n, nil
			}
			return 0, err
		}
	}
}

// pollfds runs poll on the n struct pollfd at addr.
func pollfds(t *kernel.Task, addr kernel.Arg, n uint64, block bool, deadline time.Time) (uintptr, error) {
	if n > nofile(t) {
		return 0, unix.EINVAL
	}
	s := pollSets.Get().(*pollSet)
	defer s.free()
	s.fds = slices.Grow(s.fds[:0], int(n))[:n]
	if _, err := linux.CopyPollFDSliceIn(t, addr.Pointer(), s.fds); err != nil {
		return 0, err
	}
	for _, p := range s.fds {
		s.ps = append(s.ps, polled{fd: p.FD, want: waiter.EventMaskFromLinux(uint32(uint16(p.Events)) | unix.POLLERR | unix.POLLHUP)})
	}
	s.open(t)
	got, err := s.wait(t, block, deadline)
	if err != nil {
		return 0, err
	}
	for i := range s.ps {
		s.fds[i].REvents = int16(s.ps[i].got)
	}
	_, err = linux.CopyPollFDSliceOut(t, addr.Pointer(), s.fds)
	return uintptr(got), err
}

func sysPoll(t *kernel.Task, a kernel.Args) (uintptr, error) {
	ms := a[2].Int()
	var deadline time.Time
	if ms > 0 {
		deadline = time.Now().Add(time.Duration(ms) * time.Millisecond)
	}
	n, err := pollfds(t, a[0], uint64(a[1].Uint()), ms != 0, deadline)
	if err == linuxerr.ERESTARTSYS {
		return 0, t.SetRestart(func(t *kernel.Task) (uintptr, error) { return pollfds(t, a[0], uint64(a[1].Uint()), true, deadline) })
	}
	return n, err
}

// timeout reads an optional struct timespec (or timeval: unit 1000): block is false for zero, deadline zero for none. EINVAL.
func timeout(t *kernel.Task, addr kernel.Arg, unit int64) (block bool, deadline time.Time, err error) {
	if addr == 0 {
		return true, time.Time{}, nil
	}
	var ts linux.Timespec
	if _, err := ts.CopyIn(t, addr.Pointer()); err != nil {
		return false, time.Time{}, err
	}
	sec, sub := ts.Unix()
	if unit == 1000 {
		// select(2) takes more than a second of microseconds.
		if sec < 0 || sub < 0 {
			return false, time.Time{}, unix.EINVAL
		}
		sec, sub = sec+sub/1e6, sub%1e6
	} else if sec < 0 || sub < 0 || sub >= 1e9 {
		return false, time.Time{}, unix.EINVAL
	}
	if sec == 0 && sub == 0 {
		return false, time.Time{}, nil
	}
	const long = 100 * 365 * 24 * 3600
	return true, time.Now().Add(time.Duration(min(sec, long))*time.Second + time.Duration(sub*unit)), nil
}

// putLeft writes the time that is left back; that it cannot be written is no error in itself (fs/select.c poll_select_finish).
func putLeft(t *kernel.Task, addr kernel.Arg, deadline time.Time, unit int64, err error) error {
	if addr == 0 {
		return err
	}
	var left int64
	if !deadline.IsZero() {
		left = max(0, int64(time.Until(deadline)))
	}
	ts := linux.Timespec{Sec: left / 1e9, Nsec: left % 1e9 / unit}
	if _, bad := ts.CopyOut(t, addr.Pointer()); bad != nil && err == linuxerr.ERESTARTSYS {
		return unix.EINTR // it cannot be restarted with the time that is left
	}
	return err
}

// withMask runs fn with the signal mask at addr (if that is not null) and gives its interruption the restart code of calls that set a mask.
func withMask(t *kernel.Task, addr kernel.Arg, size uint64, fn func() (uintptr, error)) (uintptr, error) {
	if addr != 0 {
		m, err := t.CopyInSigSet(addr.Pointer(), size)
		if err != nil {
			return 0, err
		}
		t.SetTempSignalMask(m)
	}
	n, err := fn()
	if err == linuxerr.ERESTARTSYS {
		return 0, linuxerr.ERESTARTNOHAND
	}
	if addr != 0 && err != unix.EINTR {
		t.RestoreSignalMask()
	}
	return n, err
}

func sysPpoll(t *kernel.Task, a kernel.Args) (uintptr, error) {
	block, deadline, err := timeout(t, a[2], 1)
	if err != nil {
		return 0, err
	}
	return withMask(t, a[3], a[4].Uint64(), func() (uintptr, error) {
		n, err := pollfds(t, a[0], uint64(a[1].Uint()), block, deadline)
		return n, putLeft(t, a[2], deadline, 1, err)
	})
}

// The events of select's three sets (fs/select.c).
var selectEvents = [3]uint32{
	linux.POLLRDNORM | linux.POLLRDBAND | linux.POLLIN | linux.POLLHUP | linux.POLLERR | linux.POLLNVAL,
	linux.POLLWRBAND | linux.POLLWRNORM | linux.POLLOUT | linux.POLLERR | linux.POLLNVAL,
	linux.POLLPRI | linux.POLLNVAL,
}

// fdSets are select's sets, of equal length; those not given are nil.
type fdSets [3][]uint64

// copyIn reads the sets of n descriptors at addrs.
func (f *fdSets) copyIn(t *kernel.Task, s *pollSet, n int, addrs [3]kernel.Arg) error {
	words := (n + 63) / 64
	s.words = slices.Grow(s.words[:0], 3*words)[:3*words]
	for i, a := range addrs {
		if a == 0 {
			continue
		}
		f[i] = s.words[i*words : (i+1)*words]
		if _, err := primitive.CopyUint64SliceIn(t, a.Pointer(), f[i]); err != nil {
			return err
		}
		if n%64 != 0 {
			f[i][words-1] &= 1<<(n%64) - 1
		}
	}
	return nil
}

func (f *fdSets) word(w int) (all uint64) {
	for i := range f {
		if f[i] != nil {
			all |= f[i][w]
		}
	}
	return all
}

func (f *fdSets) copyOut(t *kernel.Task, addrs [3]kernel.Arg) error {
	for i, a := range addrs {
		if a == 0 {
			continue
		}
		if _, err := primitive.CopyUint64SliceOut(t, a.Pointer(), f[i]); err != nil {
			return err
		}
	}
	return nil
}

func selectFDs(t *kernel.Task, n int32, addrs [3]kernel.Arg, block bool, deadline time.Time) (uintptr, error) {
	if n < 0 {
		return 0, unix.EINVAL
	}
	n = min(n, int32(max(t.FDTable().Size(), 256))) // whose table is smaller learns of bad ones, too
	s := pollSets.Get().(*pollSet)
	defer s.free()
	var sets fdSets
	if err := sets.copyIn(t, s, int(n), addrs); err != nil {
		return 0, err
	}
	for w := range int(n+63) / 64 {
		for all := sets.word(w); all != 0; all &= all - 1 {
			bit := bits.TrailingZeros64(all)
			p := polled{fd: int32(64*w + bit)}
			for i := range sets {
				if sets[i] != nil && sets[i][w]>>bit&1 != 0 {
					p.want |= waiter.EventMaskFromLinux(selectEvents[i])
				}
			}
			s.ps = append(s.ps, p)
		}
	}
	if !s.open(t) {
		s.close(0)
		return 0, unix.EBADF
	}
	if _, err := s.wait(t, block, deadline); err != nil {
		return 0, err
	}
	count := 0
	for j := range s.ps {
		p := &s.ps[j]
		w, bit := p.fd/64, uint64(1)<<(p.fd%64)
		for i := range sets {
			switch {
			case sets[i] == nil || sets[i][w]&bit == 0:
			case p.got&selectEvents[i] != 0:
				count++
			default:
				sets[i][w] &^= bit
			}
		}
	}
	return uintptr(count), sets.copyOut(t, addrs)
}

func sysSelect(t *kernel.Task, a kernel.Args) (uintptr, error) {
	block, deadline, err := timeout(t, a[4], 1000)
	if err != nil {
		return 0, err
	}
	n, err := selectFDs(t, a[0].Int(), [3]kernel.Arg{a[1], a[2], a[3]}, block, deadline)
	if err = putLeft(t, a[4], deadline, 1000, err); err == linuxerr.ERESTARTSYS {
		err = linuxerr.ERESTARTNOHAND
	}
	return n, err
}

func sysPselect(t *kernel.Task, a kernel.Args) (uintptr, error) {
	var mask, size kernel.Arg
	if a[5] != 0 {
		var set [2]uint64
		if _, err := primitive.CopyUint64SliceIn(t, a[5].Pointer(), set[:]); err != nil {
			return 0, err
		}
		mask, size = kernel.Arg(set[0]), kernel.Arg(set[1])
	}
	block, deadline, err := timeout(t, a[4], 1)
	if err != nil {
		return 0, err
	}
	return withMask(t, mask, size.Uint64(), func() (uintptr, error) {
		n, err := selectFDs(t, a[0].Int(), [3]kernel.Arg{a[1], a[2], a[3]}, block, deadline)
		return n, putLeft(t, a[4], deadline, 1, err)
	})
}
