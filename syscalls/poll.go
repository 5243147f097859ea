package syscalls

import (
	"math/bits"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/waiter"
	"moat/sentry/kernel"
	"moat/sentry/linuxerr"
	"moat/sentry/vfs"
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
	file    *vfs.FileDescription
	fd      int32
	events  uint32 // asked for
	revents uint32 // found
	entry   waiter.Entry
}

// pollSet is a set of them, reused so that a poll allocates nothing.
type pollSet struct {
	ps []polled
	ch chan struct{}
}

var pollSets = sync.Pool{New: func() any { return &pollSet{ch: make(chan struct{}, 1)} }}

func (s *pollSet) free() {
	for i := range s.ps {
		s.ps[i] = polled{}
	}
	s.ps = s.ps[:0]
	select {
	case <-s.ch:
	default:
	}
	if cap(s.ps) <= 1024 {
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
			p.revents = unix.POLLNVAL
		default:
			m := waiter.EventMaskFromLinux(p.events | unix.POLLERR | unix.POLLHUP)
			p.revents = (p.file.Readiness(m) & m).ToLinux()
		}
		if p.revents != 0 {
			n++
		}
	}
	return n
}

// wait fills revents, waiting until something is there or deadline passes (zero: never; block false: not at all). ERESTARTSYS.
func (s *pollSet) wait(t *kernel.Task, block bool, deadline time.Time) (n int, err error) {
	for i := range s.ps {
		if p := &s.ps[i]; p.fd >= 0 {
			p.file, _ = t.GetFile(p.fd)
		}
	}
	registered := 0
	defer func() {
		for i := range s.ps {
			p := &s.ps[i]
			if p.file == nil {
				continue
			}
			if i < registered {
				p.file.EventUnregister(&p.entry)
			}
			p.file.DecRef()
			p.file = nil
		}
	}()
	if n = s.scan(); n > 0 || !block {
		return n, nil
	}
	for ; registered < len(s.ps); registered++ {
		p := &s.ps[registered]
		if p.file == nil {
			continue
		}
		p.entry.Init(waiter.ChannelNotifier(s.ch), waiter.EventMaskFromLinux(p.events|unix.POLLERR|unix.POLLHUP))
		if err := p.file.EventRegister(&p.entry); err != nil {
			return 0, err
		}
	}
	for {
		if n = s.scan(); n > 0 {
			return n, nil
		}
		if err := t.BlockUntil(s.ch, deadline); err != nil {
			if err == unix.ETIMEDOUT {
				return s.scan(), nil
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
	b := make([]byte, 8*n)
	if n > 0 {
		if _, err := t.CopyIn(addr.Pointer(), b); err != nil {
			return 0, err
		}
	}
	s := pollSets.Get().(*pollSet)
	defer s.free()
	le := hostarch.ByteOrder
	for e := b; len(e) > 0; e = e[8:] {
		s.ps = append(s.ps, polled{fd: int32(le.Uint32(e)), events: uint32(le.Uint16(e[4:]))})
	}
	got, err := s.wait(t, block, deadline)
	if err != nil {
		return 0, err
	}
	for i := range s.ps {
		le.PutUint16(b[8*i+6:], uint16(s.ps[i].revents))
	}
	if n > 0 {
		if _, err := t.CopyOut(addr.Pointer(), b); err != nil {
			return 0, err
		}
	}
	return uintptr(got), nil
}

func sysPoll(t *kernel.Task, a kernel.Args) (uintptr, error) {
	ms := a[2].Int()
	var deadline time.Time
	if ms > 0 {
		deadline = time.Now().Add(time.Duration(ms) * time.Millisecond)
	}
	n, err := pollfds(t, a[0], uint64(a[1].Uint()), ms != 0, deadline)
	if err == linuxerr.ERESTARTSYS {
		return 0, t.SetRestart(func(t *kernel.Task) (uintptr, error) {
			return pollfds(t, a[0], uint64(a[1].Uint()), true, deadline)
		})
	}
	return n, err
}

// timeout reads an optional struct timespec (or timeval: unit 1000): block is false for zero, deadline zero for none. EINVAL.
func timeout(t *kernel.Task, addr kernel.Arg, unit int64) (block bool, deadline time.Time, err error) {
	if addr == 0 {
		return true, time.Time{}, nil
	}
	var b [16]byte
	if _, err := t.CopyIn(addr.Pointer(), b[:]); err != nil {
		return false, time.Time{}, err
	}
	le := hostarch.ByteOrder
	sec, sub := int64(le.Uint64(b[:])), int64(le.Uint64(b[8:]))
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

// putLeft writes the time that is left back; that it cannot be written is no error (fs/select.c poll_select_finish).
func putLeft(t *kernel.Task, addr kernel.Arg, deadline time.Time, unit int64) {
	if addr == 0 {
		return
	}
	var left int64
	if !deadline.IsZero() {
		left = max(0, int64(time.Until(deadline)))
	}
	var b [16]byte
	hostarch.ByteOrder.PutUint64(b[:], uint64(left/1e9))
	hostarch.ByteOrder.PutUint64(b[8:], uint64(left%1e9/unit))
	t.CopyOut(addr.Pointer(), b[:])
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
		putLeft(t, a[2], deadline, 1)
		return n, err
	})
}

// The events of select's three sets (fs/select.c).
const (
	selectIn  = linux.POLLRDNORM | linux.POLLRDBAND | linux.POLLIN | linux.POLLHUP | linux.POLLERR
	selectOut = linux.POLLWRBAND | linux.POLLWRNORM | linux.POLLOUT | linux.POLLERR
	selectEx  = linux.POLLPRI
)

func selectFDs(t *kernel.Task, n int32, sets [3]kernel.Arg, block bool, deadline time.Time) (uintptr, error) {
	if n < 0 {
		return 0, unix.EINVAL
	}
	n = min(n, int32(t.FDTable().Size()))
	words := int(n+63) / 64
	var in [3][]uint64
	buf := make([]byte, 8*words)
	for i, a := range sets {
		if a == 0 {
			continue
		}
		if _, err := t.CopyIn(a.Pointer(), buf); err != nil {
			return 0, err
		}
		in[i] = make([]uint64, words)
		for w := range in[i] {
			in[i][w] = hostarch.ByteOrder.Uint64(buf[8*w:])
		}
	}
	s := pollSets.Get().(*pollSet)
	defer s.free()
	want := [3]uint32{selectIn, selectOut, selectEx}
	for w := range words {
		var all uint64
		for i := range in {
			if in[i] != nil {
				all |= in[i][w]
			}
		}
		if w == words-1 && n%64 != 0 {
			all &= 1<<(n%64) - 1
		}
		for ; all != 0; all &= all - 1 {
			bit := bits.TrailingZeros64(all)
			p := polled{fd: int32(64*w + bit)}
			for i := range in {
				if in[i] != nil && in[i][w]>>bit&1 != 0 {
					p.events |= want[i]
				}
			}
			s.ps = append(s.ps, p)
		}
	}
	for i := range s.ps {
		f, err := t.GetFile(s.ps[i].fd)
		if err != nil {
			return 0, err
		}
		f.DecRef()
	}
	// A file may be ready for what no set asks (POLLHUP in the set of writers): wait on until one counts.
	var out [3][]uint64
	for {
		got, err := s.wait(t, block, deadline)
		if err != nil {
			return 0, err
		}
		count := 0
		for i := range in {
			if in[i] != nil {
				out[i] = make([]uint64, words)
			}
		}
		for j := range s.ps {
			p := &s.ps[j]
			w, bit := p.fd/64, uint(p.fd%64)
			for i := range in {
				if in[i] != nil && in[i][w]>>bit&1 != 0 && p.revents&want[i] != 0 {
					out[i][w] |= 1 << bit
					count++
				}
			}
		}
		if count == 0 && got > 0 && block && (deadline.IsZero() || time.Now().Before(deadline)) {
			// Only something like that: look again a little later rather than spin.
			if err := t.BlockUntil(nil, time.Now().Add(10*time.Millisecond)); err != nil && err != unix.ETIMEDOUT {
				return 0, err
			}
			continue
		}
		for i, a := range sets {
			if a == 0 {
				continue
			}
			for w, v := range out[i] {
				hostarch.ByteOrder.PutUint64(buf[8*w:], v)
			}
			if _, err := t.CopyOut(a.Pointer(), buf); err != nil {
				return 0, err
			}
		}
		return uintptr(count), nil
	}
}

func sysSelect(t *kernel.Task, a kernel.Args) (uintptr, error) {
	block, deadline, err := timeout(t, a[4], 1000)
	if err != nil {
		return 0, err
	}
	n, err := selectFDs(t, a[0].Int(), [3]kernel.Arg{a[1], a[2], a[3]}, block, deadline)
	putLeft(t, a[4], deadline, 1000)
	if err == linuxerr.ERESTARTSYS {
		err = linuxerr.ERESTARTNOHAND
	}
	return n, err
}

func sysPselect(t *kernel.Task, a kernel.Args) (uintptr, error) {
	var mask, size kernel.Arg
	if a[5] != 0 {
		var b [16]byte
		if _, err := t.CopyIn(a[5].Pointer(), b[:]); err != nil {
			return 0, err
		}
		mask, size = kernel.Arg(hostarch.ByteOrder.Uint64(b[:])), kernel.Arg(hostarch.ByteOrder.Uint64(b[8:]))
	}
	block, deadline, err := timeout(t, a[4], 1)
	if err != nil {
		return 0, err
	}
	return withMask(t, mask, size.Uint64(), func() (uintptr, error) {
		n, err := selectFDs(t, a[0].Int(), [3]kernel.Arg{a[1], a[2], a[3]}, block, deadline)
		putLeft(t, a[4], deadline, 1)
		return n, err
	})
}
