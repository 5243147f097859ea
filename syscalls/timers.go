package syscalls

import (
	"math"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"

	"moat/sentry/kernel"
	"moat/sentry/kernel/signal"
	"moat/sentry/kernel/timer"
)

func init() {
	register(
		full(36, "getitimer", "int ptr", sysGetitimer),
		full(37, "alarm", "uint", sysAlarm),
		full(38, "setitimer", "int ptr ptr", sysSetitimer),
		full(222, "timer_create", "int ptr ptr", sysTimerCreate),
		full(223, "timer_settime", "int hex ptr ptr", sysTimerSettime),
		full(224, "timer_gettime", "int ptr", sysTimerGettime),
		full(225, "timer_getoverrun", "int", sysTimerGetoverrun),
		full(226, "timer_delete", "int", sysTimerDelete),
	)
}

// groupTimers are a process' timers (kernel.GroupTimers).
type groupTimers struct {
	tg *kernel.ThreadGroup

	mu     sync.Mutex
	itimer [3]*timer.Timer       // by ITIMER_*; +checklocks:mu
	posix  map[int32]*posixTimer // +checklocks:mu
	nextID int32                 // +checklocks:mu
}

// NewGroupTimers makes a process' timer state (kernel.Hooks).
func NewGroupTimers(tg *kernel.ThreadGroup) kernel.GroupTimers { return &groupTimers{tg: tg} }

// Exec implements kernel.GroupTimers: POSIX timers go, interval timers stay.
func (g *groupTimers) Exec() {
	g.mu.Lock()
	all := g.posix
	g.posix = nil
	g.nextID = 0
	g.mu.Unlock()
	for _, p := range all {
		p.delete()
	}
}

// Exit implements kernel.GroupTimers.
func (g *groupTimers) Exit() {
	g.Exec()
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, t := range g.itimer {
		if t != nil {
			t.Stop()
		}
	}
}

func timersOf(t *kernel.Task) *groupTimers { return t.ThreadGroup().Timers.(*groupTimers) }

// interval returns ITIMER_which, made at its first use.
func (g *groupTimers) interval(which int32) *timer.Timer {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.itimer[which] == nil {
		var c timer.Clock = timer.Monotonic
		sig := linux.SIGALRM
		switch which {
		case linux.ITIMER_VIRTUAL:
			c, sig = groupClock{g.tg, true}, linux.SIGVTALRM
		case linux.ITIMER_PROF:
			c, sig = groupClock{g.tg, false}, linux.SIGPROF
		}
		g.itimer[which] = newIntervalTimer(g.tg, c, sig)
	}
	return g.itimer[which]
}

// newIntervalTimer returns a timer that sends sig to tg. ITIMER_REAL goes on when its signal is taken (it_real_fn); the CPU timers cannot, since their clock must not be
// read then.
func newIntervalTimer(tg *kernel.ThreadGroup, c timer.Clock, sig linux.Signal) *timer.Timer {
	e := signal.NewPreallocated()
	e.Info = linux.SignalInfo{Signo: int32(sig), Code: linux.SI_KERNEL}
	var tm *timer.Timer
	_, real := c.(timer.HostClock)
	tm = timer.New(c, func(uint64) bool { return (tg.SendTimerSignal(nil, nil, e) || e.Queued()) && real })
	if real {
		e.OnDequeue = func(*linux.SignalInfo) { tm.Rearm() }
	}
	return tm
}

func copyOutItimerval(t *kernel.Task, p hostarch.Addr, left, period int64) error {
	// A timer that is armed never reads as zero.
	if left > 0 && left < 1000 {
		left = 1000
	}
	itv := linux.ItimerVal{Interval: timevalOf(period), Value: timevalOf(left)}
	_, err := itv.CopyOut(t, p)
	return err
}

// timevalNs is tv in nanoseconds: EINVAL.
func timevalNs(tv linux.Timeval) (int64, error) {
	if tv.Sec < 0 || tv.Usec < 0 || tv.Usec >= 1e6 {
		return 0, unix.EINVAL
	}
	if tv.Sec >= 9e9 {
		return math.MaxInt64 / 2, nil
	}
	return tv.Sec*1e9 + tv.Usec*1e3, nil
}

func sysGetitimer(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a[0].Uint() > linux.ITIMER_PROF {
		return 0, unix.EINVAL
	}
	left, period := timersOf(t).interval(a[0].Int()).Get()
	return 0, copyOutItimerval(t, a[1].Pointer(), left, period)
}

func sysSetitimer(t *kernel.Task, a kernel.Args) (uintptr, error) {
	var value, period int64
	var err error
	if p := a[1].Pointer(); p != 0 {
		var itv linux.ItimerVal
		if _, err := itv.CopyIn(t, p); err != nil {
			return 0, err
		}
		if period, err = timevalNs(itv.Interval); err != nil {
			return 0, err
		}
		if value, err = timevalNs(itv.Value); err != nil {
			return 0, err
		}
	}
	if a[0].Uint() > linux.ITIMER_PROF {
		return 0, unix.EINVAL
	}
	left, old := setInterval(timersOf(t).interval(a[0].Int()), value, period)
	if p := a[2].Pointer(); p != 0 {
		err = copyOutItimerval(t, p, left, old)
	}
	return 0, err
}

// setInterval arms tm in value nanoseconds, 0 disarms it.
func setInterval(tm *timer.Timer, value, period int64) (left, old int64) {
	if value == 0 {
		return tm.Set(timer.Setting{})
	}
	return tm.Set(timer.Setting{At: addSat(tm.Clock().Now(), value), Period: period})
}

func sysAlarm(t *kernel.Task, a kernel.Args) (uintptr, error) {
	left, _ := setInterval(timersOf(t).interval(linux.ITIMER_REAL), int64(a[0].Uint())*1e9, 0)
	// alarm_setitimer: rounded, but what is left is never 0.
	sec := left / 1e9
	if rest := left % 1e9; sec == 0 && rest > 0 || rest >= 5e8 {
		sec++
	}
	return uintptr(sec), nil
}

// posixTimer is one of timer_create(2)'s.
type posixTimer struct {
	g      *groupTimers
	timer  *timer.Timer
	target *kernel.Task  // SIGEV_THREAD_ID
	entry  *signal.Entry // nil: SIGEV_NONE
	// real: the clock is not a process' CPU clock, which must not be read with the signal lock held.
	real    bool
	deleted atomic.Bool

	mu      sync.Mutex
	pending uint64 // expiries since the signal was queued, that one left out; +checklocks:mu
	overrun int32  // of the signal that was delivered last; +checklocks:mu
}

const maxOverrun = math.MaxInt32

func (p *posixTimer) fire(n uint64) (hold bool) {
	p.mu.Lock()
	p.pending += n
	p.mu.Unlock()
	sent := p.g.tg.SendTimerSignal(nil, p.target, p.entry)
	if sent && p.deleted.Load() {
		p.g.tg.CancelTimerSignal(p.target, p.entry)
	}
	return (sent || p.entry.Queued()) && p.real
}

// dequeued tells the signal how many expiries it stands for, its own left out; info is nil if it was discarded.
func (p *posixTimer) dequeued(info *linux.SignalInfo) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.real {
		p.pending += p.timer.Rearm()
	}
	p.overrun = 0
	if p.pending > 0 {
		p.overrun = int32(min(p.pending-1, maxOverrun))
	}
	p.pending = 0
	if info != nil {
		info.SetOverrun(p.overrun)
	}
}

func (p *posixTimer) delete() {
	p.deleted.Store(true)
	p.timer.Stop()
	if p.entry != nil {
		p.g.tg.CancelTimerSignal(p.target, p.entry)
	}
}

func sysTimerCreate(t *kernel.Task, a kernel.Args) (uintptr, error) {
	ev := linux.Sigevent{Signo: int32(linux.SIGALRM), Notify: linux.SIGEV_SIGNAL}
	if addr := a[1].Pointer(); addr != 0 {
		if _, err := ev.CopyIn(t, addr); err != nil {
			return 0, err
		}
	}
	// A number is used up, and told, before the rest is looked at (do_timer_create).
	which := a[0].Int()
	c, err := clockOf(t, which)
	switch {
	case err != nil && which >= 0 && !isAlarm(which):
		return 0, err
	case which == linux.CLOCK_REALTIME_COARSE, which == linux.CLOCK_MONOTONIC_COARSE, which == linux.CLOCK_MONOTONIC_RAW:
		return 0, unix.EOPNOTSUPP
	}
	g := timersOf(t)
	id, err2 := g.number()
	if err2 != nil {
		return 0, err2
	}
	_, group := c.(groupClock)
	p := &posixTimer{g: g, real: !group}
	var fire func(uint64) bool
	if p.target, err2 = sigevTarget(t, &ev); err2 != nil {
		return 0, err2
	}
	if ev.Notify != linux.SIGEV_NONE {
		if !linux.Signal(ev.Signo).IsValid() {
			return 0, unix.EINVAL
		}
		if a[1] == 0 {
			ev.Value = uint64(id)
		}
		p.entry = signal.NewPreallocated()
		p.entry.Info = linux.SignalInfo{Signo: ev.Signo, Code: linux.SI_TIMER}
		p.entry.Info.SetTimerID(linux.TimerID(id))
		p.entry.Info.SetSigval(ev.Value)
		p.entry.OnDequeue = p.dequeued
		fire = p.fire
	}
	if err := t.CopyOutUint32(a[2].Pointer(), uint32(id)); err != nil {
		return 0, err
	}
	if isAlarm(which) {
		err = unix.EOPNOTSUPP // nothing could wake the host
	}
	if err != nil {
		return 0, err
	}
	p.timer = timer.New(c, fire)
	g.mu.Lock()
	g.posix[id] = p
	g.mu.Unlock()
	return 0, nil
}

// sigevTarget is good_sigevent: who gets the signal, nil for the process.
func sigevTarget(t *kernel.Task, ev *linux.Sigevent) (*kernel.Task, error) {
	switch ev.Notify {
	case linux.SIGEV_SIGNAL, linux.SIGEV_NONE, linux.SIGEV_THREAD:
		return nil, nil
	case linux.SIGEV_SIGNAL | linux.SIGEV_THREAD_ID, linux.SIGEV_THREAD_ID | linux.SIGEV_THREAD:
		if o := t.PIDNamespace().Task(ev.Tid); o != nil && o.ThreadGroup() == t.ThreadGroup() {
			return o, nil
		}
	}
	return nil, unix.EINVAL
}

// number takes a number for a timer that is to be made.
func (g *groupTimers) number() (int32, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.posix == nil {
		g.posix = map[int32]*posixTimer{}
	}
	// Timers count against RLIMIT_SIGPENDING on Linux.
	if uint64(len(g.posix)) >= g.tg.Limit(linux.RLIMIT_SIGPENDING).Cur {
		return 0, unix.EAGAIN
	}
	for g.posix[g.nextID] != nil {
		g.nextID = (g.nextID + 1) & math.MaxInt32
	}
	id := g.nextID
	g.nextID = (id + 1) & math.MaxInt32
	return id, nil
}

func posixTimerOf(t *kernel.Task, id int32) (*posixTimer, error) {
	g := timersOf(t)
	g.mu.Lock()
	defer g.mu.Unlock()
	if p := g.posix[id]; p != nil {
		return p, nil
	}
	return nil, unix.EINVAL
}

func copyOutItimerspec(t *kernel.Task, p hostarch.Addr, left, period int64) error {
	its := linux.Itimerspec{Interval: linux.NsecToTimespec(period), Value: linux.NsecToTimespec(left)}
	_, err := its.CopyOut(t, p)
	return err
}

func sysTimerSettime(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a[2] == 0 {
		return 0, unix.EINVAL
	}
	var its linux.Itimerspec
	if _, err := its.CopyIn(t, a[2].Pointer()); err != nil {
		return 0, err
	}
	period, err := timespecNs(its.Interval)
	if err != nil {
		return 0, err
	}
	value, err := timespecNs(its.Value)
	if err != nil {
		return 0, err
	}
	p, err := posixTimerOf(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	s := timer.Setting{At: value, Period: period}
	if s.At != 0 && a[1].Int()&linux.TIMER_ABSTIME == 0 {
		s.At = addSat(p.timer.Clock().Now(), s.At)
	}
	due := s.At != 0 && period == 0 && p.entry != nil && s.At <= p.timer.Now()
	if due {
		s.At = 0
	}
	left, old := p.timer.Set(s)
	p.mu.Lock()
	p.pending, p.overrun = 0, 0
	p.mu.Unlock()
	if due { // its signal is there when the call returns
		p.g.tg.SendTimerSignal(t, p.target, p.entry)
	}
	if o := a[3].Pointer(); o != 0 {
		return 0, copyOutItimerspec(t, o, left, old)
	}
	return 0, nil
}

func sysTimerGettime(t *kernel.Task, a kernel.Args) (uintptr, error) {
	p, err := posixTimerOf(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	left, period := p.timer.Get()
	return 0, copyOutItimerspec(t, a[1].Pointer(), left, period)
}

func sysTimerGetoverrun(t *kernel.Task, a kernel.Args) (uintptr, error) {
	p, err := posixTimerOf(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return uintptr(p.overrun), nil
}

func sysTimerDelete(t *kernel.Task, a kernel.Args) (uintptr, error) {
	p, err := posixTimerOf(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	p.g.mu.Lock()
	delete(p.g.posix, a[0].Int())
	p.g.mu.Unlock()
	p.delete()
	return 0, nil
}
