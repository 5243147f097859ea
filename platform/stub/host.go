package stub

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/platform"
)

// Config is what a platform makes of stubs.
type Config struct {
	// Name is the platform's.
	Name string
	// Guest are the calls that guest threads may make, from the entry code; all others are trapped.
	Guest []Rule
	// Handlers makes the stubs handle signals by the entry code, each guest thread on an Area of its own.
	Handlers bool
	// NewThread makes the platform's Thread of host thread tid. a is nil without Handlers.
	NewThread func(s *Space, tid int, a *Area) (platform.Thread, error)
	// Looks reports whether somebody in the sentry looks for guests' calls from the CPU all the time. nil without Handlers.
	Looks func(cpu int) bool
}

// Host makes stubs: a platform.Platform.
type Host struct {
	cfg    Config
	ctlFD  int // the control file: order and reply pages of all stubs, and areas
	codeFD int // the entry code, the helper's, and the answers in place

	mu sync.Mutex
	// +checklocks:mu
	ctlSize int64
	// +checklocks:mu
	free []*slot
	// +checklocks:mu
	freeAreas []*chunk
	// spaces are the stubs that there are, by process ID.
	// +checklocks:mu
	spaces map[int]*Space
	// gone is told of stubs that ended by themselves.
	// +checklocks:mu
	gone func(platform.AddressSpace)
	// forking counts the forks in flight, forks numbers them. early are children that ended before they could be entered in spaces, each
	// with the number of the next fork at that time: a later one has another child of that process ID.
	// +checklocks:mu
	forking int
	// +checklocks:mu
	forks uint64
	// +checklocks:mu
	early map[int]uint64
	// ready are stubs for use; coming is how many more there will be.
	// +checklocks:mu
	ready []*Space
	// +checklocks:mu
	coming int
	// tickets is the last ticket given.
	// +checklocks:mu
	tickets uint64
	// +checklocks:mu
	closed bool

	// resultMu is held while a helper tells of a result, by the control file's position.
	resultMu sync.Mutex

	// window is what all stubs have mapped at WindowBase, up to WindowTexts.
	window []byte

	zygote *Space
	quit   chan struct{}
}

// Window is the sentry's mapping of what every stub maps at WindowBase for reading and execution.
func (h *Host) Window() []byte { return h.window }

// minUser is Linux's default mmap_min_addr.
const minUser = 0x10000

// New starts the platform: it forks the first stub, so it must be called before the sentry's filter forbids that.
func New(cfg Config) (*Host, error) {
	if err := unix.SchedGetaffinity(0, &CPUs); err != nil {
		return nil, fmt.Errorf("stub: the CPUs that there are: %w", err)
	}
	h := &Host{cfg: cfg, spaces: map[int]*Space{}, early: map[int]uint64{}, quit: make(chan struct{})}
	var err error
	if h.ctlFD, err = memfile("moat-control", nil); err != nil {
		return nil, fmt.Errorf("stub: the control file: %w", err)
	}
	if h.codeFD, err = memfile("moat-stub", codePages()); err != nil {
		return nil, fmt.Errorf("stub: the stub's code: %w", err)
	}
	sl, err := h.newSlot()
	if err != nil {
		return nil, err
	}
	window, err := memfile("moat-window", nil)
	if err != nil {
		return nil, fmt.Errorf("stub: the window: %w", err)
	}
	defer unix.Close(window)
	if err = unix.Ftruncate(window, WindowTexts-WindowBase); err == nil {
		h.window, err = unix.Mmap(window, 0, WindowTexts-WindowBase, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err != nil {
		return nil, fmt.Errorf("stub: the window: %w", err)
	}
	program := compile(cfg.Guest, HelperRules(h.ctlFD))
	z := &zygote{codeFD: uintptr(h.codeFD), windowFD: uintptr(window), ctlFD: uintptr(h.ctlFD), orderOff: uintptr(sl.off), replyOff: uintptr(sl.off) + orderSize,
		filter: &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}}
	if cfg.Handlers {
		z.setHandlers()
	}
	type result struct {
		pid int
		e   unix.Errno
	}
	done, started := make(chan result), make(chan struct{})
	go func() {
		// The stubs' parent-death signal is tied to this OS thread, which therefore lives as long as the platform. It is their parent.
		runtime.LockOSThread()
		pid, e := forkZygote(z)
		done <- result{pid, e}
		<-started
		h.watch()
		<-h.quit
	}()
	r := <-done
	if r.e != 0 {
		close(started)
		close(h.quit)
		return nil, fmt.Errorf("stub: forking the first stub: %w", r.e)
	}
	h.zygote = &Space{host: h, pid: r.pid, slot: sl, cpu: -1}
	h.mu.Lock()
	h.spaces[r.pid] = h.zygote
	h.mu.Unlock()
	close(started)
	// An empty batch is answered once the stub is up.
	h.zygote.orderMu.Lock()
	defer h.zygote.orderMu.Unlock()
	if err := h.zygote.carryOut(nil, false); err != nil {
		return nil, fmt.Errorf("the first stub did not start: %w", err)
	}
	return h, nil
}

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
func (h *Host) Name() string { return h.cfg.Name }

// UserRange implements platform.Platform.
func (*Host) UserRange() hostarch.AddrRange {
	return hostarch.AddrRange{Start: minUser, End: stubBase}
}

// Reserved implements platform.Platform.
func (*Host) Reserved() hostarch.AddrRange {
	return hostarch.AddrRange{Start: WindowBase, End: windowEnd}
}

// Close implements platform.Platform.
func (h *Host) Close() {
	h.mu.Lock()
	h.closed = true
	for h.coming > 0 {
		h.mu.Unlock()
		time.Sleep(time.Millisecond)
		h.mu.Lock()
	}
	h.ready = nil
	all := slices.Collect(maps.Values(h.spaces))
	h.mu.Unlock()
	for _, s := range all {
		if !s.released.Swap(true) {
			s.kill()
		}
	}
	select {
	case <-h.quit:
	default:
		close(h.quit)
	}
}

// newSlot returns control pages with no batch in them.
func (h *Host) newSlot() (*slot, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.free); n > 0 {
		sl := h.free[n-1]
		h.free = h.free[:n-1]
		return sl, nil
	}
	return grow(h, slotBytes, mapSlot)
}

// grow adds n bytes to the control file and maps them.
//
// +checklocks:h.mu
func grow[T any](h *Host, n int64, mapped func(fd int, off int64) (T, error)) (v T, err error) {
	if err := unix.Ftruncate(h.ctlFD, h.ctlSize+n); err != nil {
		return v, fmt.Errorf("stub: growing the control file: %w", err)
	}
	if v, err = mapped(h.ctlFD, h.ctlSize); err == nil {
		h.ctlSize += n
	}
	return v, err
}

// freeSlot takes back the pages of a stub that has been reaped.
func (h *Host) freeSlot(sl *slot) {
	sl.order.seq.Store(0)
	sl.order.ack.Store(0)
	sl.order.waits.Store(0)
	sl.reply.ready.Store(0)
	clear(sl.bases[:sl.texts])
	sl.texts = 0
	h.mu.Lock()
	h.free = append(h.free, sl)
	h.mu.Unlock()
}

// newChunk returns the memory of an Area.
func (h *Host) newChunk() (*chunk, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.freeAreas); n > 0 {
		c := h.freeAreas[n-1]
		h.freeAreas = h.freeAreas[:n-1]
		return c, nil
	}
	return grow(h, areaSize, mapChunk)
}

func (h *Host) freeChunks(c ...*chunk) {
	h.mu.Lock()
	h.freeAreas = append(h.freeAreas, c...)
	h.mu.Unlock()
}
