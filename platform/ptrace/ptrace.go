package ptrace

import (
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/platform"
)

// host is the platform.
type host struct {
	ctlFD int // the control file: order and reply pages of all stubs

	mu sync.Mutex
	// +checklocks:mu
	ctlSize int64
	// +checklocks:mu
	free []*slot
	// +checklocks:mu
	spaces map[*space]struct{}

	zygote *space
	quit   chan struct{}
}

// minUser is Linux's default mmap_min_addr.
const minUser = 0x10000

// New starts the platform: it forks the first stub, so it must be called before the sentry's filter forbids that.
func New() (platform.Platform, error) {
	h := &host{spaces: map[*space]struct{}{}, quit: make(chan struct{})}
	code, err := memfile("moat-stub", append(pad(codeBytes()), filterPage()...))
	if err != nil {
		return nil, fmt.Errorf("ptrace: the stub's code: %w", err)
	}
	defer unix.Close(code)
	if h.ctlFD, err = memfile("moat-control", nil); err != nil {
		return nil, fmt.Errorf("ptrace: the control file: %w", err)
	}
	sl, err := h.newSlot()
	if err != nil {
		return nil, err
	}
	z := &zygote{codeFD: uintptr(code), ctlFD: uintptr(h.ctlFD), orderOff: uintptr(sl.off), replyOff: uintptr(sl.off) + orderSize}
	type result struct {
		pid int
		e   unix.Errno
	}
	done := make(chan result)
	go func() {
		// The stubs' parent-death signal is tied to this OS thread, which therefore lives as long as the platform.
		runtime.LockOSThread()
		pid, e := forkZygote(z)
		done <- result{pid, e}
		<-h.quit
	}()
	r := <-done
	if r.e != 0 {
		return nil, fmt.Errorf("ptrace: forking the first stub: %w", r.e)
	}
	h.zygote = &space{host: h, pid: r.pid, slot: sl}
	h.mu.Lock()
	h.spaces[h.zygote] = struct{}{}
	h.mu.Unlock()
	// An empty batch is answered once the stub is up.
	h.zygote.orderMu.Lock()
	defer h.zygote.orderMu.Unlock()
	if err := h.zygote.carryOut(nil); err != nil {
		return nil, fmt.Errorf("the first stub did not start: %w", err)
	}
	return h, nil
}

func pad(b []byte) []byte { return append(append([]byte(nil), b...), make([]byte, pageSize-len(b))...) }

func memfile(name string, data []byte) (int, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return -1, err
	}
	for len(data) > 0 {
		n, err := unix.Write(fd, data)
		if err != nil {
			unix.Close(fd)
			return -1, err
		}
		data = data[n:]
	}
	return fd, nil
}

// Name implements platform.Platform.
func (*host) Name() string { return "ptrace" }

// UserRange implements platform.Platform.
func (*host) UserRange() hostarch.AddrRange {
	return hostarch.AddrRange{Start: minUser, End: stubBase}
}

// NewAddressSpace implements platform.Platform.
func (h *host) NewAddressSpace() (platform.AddressSpace, error) { return h.zygote.Fork() }

// Close implements platform.Platform.
func (h *host) Close() {
	h.mu.Lock()
	all := make([]*space, 0, len(h.spaces))
	for s := range h.spaces {
		all = append(all, s)
	}
	h.mu.Unlock()
	for _, s := range all {
		s.Release()
	}
	select {
	case <-h.quit:
	default:
		close(h.quit)
	}
}

// newSlot returns control pages with no batch in them.
func (h *host) newSlot() (*slot, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.free); n > 0 {
		sl := h.free[n-1]
		h.free = h.free[:n-1]
		return sl, nil
	}
	off := h.ctlSize
	if err := unix.Ftruncate(h.ctlFD, off+orderSize+replySize); err != nil {
		return nil, fmt.Errorf("ptrace: growing the control file: %w", err)
	}
	sl, err := mapSlot(h.ctlFD, off)
	if err != nil {
		return nil, err
	}
	h.ctlSize = off + orderSize + replySize
	return sl, nil
}

// freeSlot takes back the pages of a stub that has been reaped.
func (h *host) freeSlot(sl *slot) {
	sl.order.seq.Store(0)
	sl.reply.seq.Store(0)
	sl.reply.ready.Store(0)
	h.mu.Lock()
	h.free = append(h.free, sl)
	h.mu.Unlock()
}
