// Package trap is the fast platform: guest threads run natively in stubs (package stub), and what they call is caught by the host's Syscall User Dispatch.
//
// # A system call
//
// The host traps every call that is not made by the entry code. It then delivers SIGSYS, whose handler in the entry
// code runs on the thread's Area: memory shared with the sentry. The frame that the host laid there holds all registers and the extended
// state. The handler sets StateEvent and waits; the sentry reads the frame, answers by writing registers into it, sets StateRun, and
// the handler returns through rt_sigreturn(2). Faults and other synchronous signals come the same way, and an Interrupt is a SIGUSR2.
//
// # A rewritten system call
//
// The trap and the way back cost some 3 us, so the code of files that are mapped for execution is rewritten where it makes calls often (rewrite.go). Such a
// call jumps through a slot in the window (slots.go) to callCode, which stores the registers in the area by itself, without a signal; the
// extended state stays where it is, but for a copy that calls which make a thread leave for it. The sentry answers by writing registers there. What that way cannot do,
// because it needs the extended state or a GS base of the guest's, is done in a frame: StateFrame makes the thread trap.
//
// # Calls answered in place
//
// A slot whose call only concerns the thread jumps to stub.AnswerAddr: identities, getcpu(2), sched_yield(2), for which a crowd asks the host, short sleeps, and
// rt_sigprocmask(2) and rt_sigaction(2) while no signal is pending. The signal mask lives in platform.SignalWords, which the guest writes; who queues a signal sets Pending there
// first and reads the mask then, the guest does both the other way round. The actions of signals live there as long as the process has one thread; a posix_spawn(3)
// of glibc reads and sets all of them. Such a call takes 8 to 20 ns where the host's takes 130. A sleep of up to a millisecond is the host's, on a word of the area's: as exact as
// there (the Go runtime's timers, which a blocked call waits by, come up to 1 ms late), for 2 us of CPU time instead of 65. The thread counts its ticks; where CPU time is limited it is a call. A thread that is stopped
// on the way, by an interrupt or a fault, makes a call of it, unless it has been made (stub.Area.Answer).
//
// # Waiting
//
// A call by hand-over costs no host call as long as both sides look for each other (0.3 to 0.4 us, of which the transfer of one cache line each way is
// 0.1: the guest writes the line that the sentry looks at last and in one go, and the sentry keeps its books while the guest is on its way back). Everything else that it can cost is a wake: by futex 3 us on one CPU, 35 to 50 us where the sleeper's CPU is idle, and as much again where the Go runtime wakes
// an OS thread for a goroutine that another one has made ready. So the goroutines of running threads wait on one board (board.go), and one of
// them, the poller, looks at all: a task that a call wakes is answered next on the same OS thread, and guest threads that wait for each other take turns on the
// other CPU, off the poller's. A thread of which the sentry is about to
// have to wake the host's is woken by the guest thread whose call blocks next, on its own CPU and without an interrupt to it, or else by the poller a microsecond later, which
// also sees to it that a guest has done what it was told. A ping-pong of two processes through pipes takes two host calls of each guest a round trip and none of the
// sentry, which is the host's own time but for four hand-overs. With more guest threads than CPUs one CPU is for the poller and
// the guests share the others as long as it finds an event every 5 us that is soon answered; where calls are rarer or long nobody polls: a guest thread then wakes
// the watchman of its CPU, and one wake serves all that have events by then.
//
// What calls send waits, while somebody polls, until no guest runs any more or none has called for some microseconds. Then segments are made of it, and frames leave by one host call
// (source.go): the guest does not look for an answer while that is done, and who is sent to wakes once. A program of the host that talks with guests and runs on the poller's CPU takes
// it away with each frame that wakes it, or is taken off it by each that it sends, and the host leaves both there, however idle the other CPU is: who notices that goes to another (depart).
// While frames come one soon after the other the sources are looked at for some time before their goroutines sleep.
//
// Tried and left: a futex for each thread with an OS thread of the sentry's behind it (each blocking call then wakes two threads of the runtime's);
// runtime.Gosched between looks (it wakes an OS thread each time); that a thread becomes the poller before its guest goes on (where both sides happen to share a CPU, the
// guest then looks in vain for 60 us); guests where the host puts them (one that lands on the poller's CPU stays there, and each hand-over takes
// as long as the poller looks in vain); watchmen that wait for the end of the poll as sources do (an event that comes while the poller answers a call that takes long
// after all then waits for it); guests that look three or ten times as long, or that leave the poller's CPU at the first hand-over that slept;
// poller threads that leave a CPU whenever a frame woke them there, or more often than every 0.5 ms (to move takes 50 us); guest threads that yield their CPU while they look;
// frames held back, too, while a source's goroutine takes what comes; and sources that keep their place for a millisecond, or timers with a millisecond of slack, so that the
// runtime's sysmon does not rest and wake to a look every 20 us (redis and nginx beside their clients on two CPUs answer no faster).
//
// # Trust
//
// A guest can write its areas and jump into the entry code. From there it can call futex, rt_sigreturn and exit, on itself. The sentry
// reads the frame's place from the area and checks that it lies on the signal stack; it copies registers out and takes them for what they
// are, a guest's.
//
// Locks: thread.mu guards the thread's life against Interrupt. board.mu guards the board's places; looking at the board takes no lock: who clears a thread's bit in row.waits
// owns its parked goroutine.
package trap

import (
	"golang.org/x/sys/unix"

	"moat/platform"
	"moat/platform/stub"
)

// GuestRules are the calls of the host that guest threads may make.
func GuestRules() []stub.Rule {
	return []stub.Rule{
		{Nr: unix.SYS_RT_SIGRETURN, Name: "rt_sigreturn", Why: "go on in guest code"},
		{Nr: unix.SYS_FUTEX, Name: "futex", Why: "hand over to the sentry and wait for it"},
		{Nr: unix.SYS_SCHED_YIELD, Name: "sched_yield", Why: "threads that spin for each other, more than there are CPUs"},
		{Nr: unix.SYS_EXIT, Name: "exit", Why: "a guest thread ends"},
	}
}

// Platform implements platform.Platform and platform.Rewriter.
type Platform struct {
	*stub.Host
	*slots
	board *board
}

// New starts the platform: it forks the first stub, so it must be called before the sentry's filter forbids that.
func New() (platform.Platform, error) {
	p := &Platform{}
	var err error
	if p.Host, err = stub.New(stub.Config{Name: "trap", Guest: GuestRules(), Handlers: true, NewThread: p.newThread,
		Looks: func(cpu int) bool { return p.board.poller.Load() && int(p.board.home.Load()) == cpu }}); err != nil {
		return nil, err
	}
	ncpu = int32(stub.CPUs.Count())
	p.slots = newSlots(p.Window())
	p.board = newBoard(p.Bells())
	return p, nil
}

// Close implements platform.Platform.
func (p *Platform) Close() {
	p.board.close()
	p.Host.Close()
}
