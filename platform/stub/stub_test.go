package stub

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"

	"moat/platform"
)

// bareThread is a guest thread as its area has it.
type bareThread struct {
	platform.Thread
	a *Area
}

const (
	codeAt = 0x400000
	dataAt = 0x600000
)

// looks is what the hosts of newGuest are told of somebody who looks for guests.
var looks bool

// newGuest starts a host whose one guest thread runs code at codeAt, with registers that the test does not care about, and the data page at dataAt in RDI.
func newGuest(t *testing.T, code []byte) (*Host, *Space, *Area) {
	t.Helper()
	h, err := New(Config{Name: "test", Handlers: true, Guest: []Rule{
		{Nr: unix.SYS_RT_SIGRETURN}, {Nr: unix.SYS_FUTEX}, {Nr: unix.SYS_EXIT}},
		NewThread: func(_ *Space, _ int, a *Area) (platform.Thread, error) { return bareThread{a: a}, nil },
		Looks:     func(int) bool { return looks }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	fd, err := memfile("test", append(append(code, make([]byte, pageSize-len(code))...), make([]byte, pageSize)...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	as, err := h.NewAddressSpace()
	if err != nil {
		t.Fatal(err)
	}
	s := as.(*Space)
	s.Map(hostarch.AddrRange{Start: codeAt, End: codeAt + pageSize}, fd, 0, hostarch.ReadExecute)
	s.Map(hostarch.AddrRange{Start: dataAt, End: dataAt + pageSize}, fd, pageSize, hostarch.ReadWrite)
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	th, err := s.NewThread()
	if err != nil {
		t.Fatal(err)
	}
	a := th.(bareThread).a
	uc := a.Bytes(a.Control().Ucontext, 304)
	if uc == nil {
		t.Fatal("no frame")
	}
	set := func(off int, v uint64) {
		for i := range 8 {
			uc[off+i] = byte(v >> (8 * i))
		}
	}
	set(ucRIP, codeAt)
	set(ucRDI, dataAt)
	a.Resume(StateRun)
	return h, s, a
}

// Offsets in struct ucontext.
const ucRDI, ucRIP = 104, 168

// TestNothingOfTheSentry: a stub has nothing mapped but what it needs, wherever the sentry had its own pages, of which the host puts the stack where it likes.
func TestNothingOfTheSentry(t *testing.T) {
	for _, at := range []uintptr{0x10000, WindowBase - pageSize, windowEnd, stubBase - pageSize, stubBase + 0x8000, replyAddr + replySize, areaBase + 0x1234*pageSize, stubEnd - pageSize, stubEnd,
		userEnd - pageSize} {
		mapped, _, e := unix.Syscall6(unix.SYS_MMAP, at, pageSize, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED_NOREPLACE, ^uintptr(0), 0)
		if e == unix.EEXIST {
			continue
		}
		if e != 0 || mapped != at {
			t.Fatalf("map at %x: %v", at, e)
		}
		defer unix.Syscall(unix.SYS_MUNMAP, at, pageSize, 0)
	}
	_, s, _ := newGuest(t, []byte{0xeb, 0xfe}) // l: jmp l
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", s.pid))
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(b)) {
		var from, to uint64
		if _, err := fmt.Sscanf(l, "%x-%x", &from, &to); err != nil {
			t.Fatal(l, err)
		}
		within := func(start, end uint64) bool { return from >= start && to <= end }
		if !within(WindowBase, windowEnd) && !within(stubBase, tableAddr+pageSize) && !within(orderAddr, replyAddr+replySize) && !(within(areaBase, stubEnd) && strings.Contains(l, "moat-control")) &&
			!within(codeAt, codeAt+pageSize) && !within(dataAt, dataAt+pageSize) && !strings.Contains(l, "[vsyscall]") {
			t.Errorf("mapped: %s", l)
		}
	}
}

// TestForgedAcknowledgement: a guest cannot write what the helper tells that a batch is done by, so pages that it has lost are lost before they can
// get another owner.
func TestForgedAcknowledgement(t *testing.T) {
	for _, target := range []uint64{orderAddr, orderAddr + 24} {
		// mov rbx, target; l: add dword [rbx], 1; jmp l
		code := append([]byte{0x48, 0xbb}, le64(target)...)
		_, s, a := newGuest(t, append(code, 0x83, 0x03, 0x01, 0xeb, 0xfb))
		if done, err := a.AwaitFor(5 * time.Second); err != nil || !done {
			t.Fatalf("the guest goes on after writing to %#x: %v", target, err)
		}
		if sig := unix.Signal(a.Control().Signal); sig != unix.SIGSEGV {
			t.Fatalf("writing to %#x: %v", target, sig)
		}
		s.orderMu.Lock()
		if seq, ack := s.slot.order.seq.Load(), s.slot.order.ack.Load(); seq != ack {
			t.Errorf("batch %d, acknowledged %d", seq, ack)
		}
		s.orderMu.Unlock()
	}
}

// TestStaleThread: a stub whose guest thread does not end when it is told is not used again.
func TestStaleThread(t *testing.T) {
	looks = true
	defer func() { looks = false }()
	// The thread forges that it waits, and waits in the handler indeed, but on another word than the sentry writes to.
	area := uint64(areaBase + areaSize*(firstThreads-1))
	look := bytes.Index(codePages()[handlerOff:callOff], []byte{0x41, 0x8b, 0x5c, 0x24, 12}) // MOVL 12(R12), BX
	if look < 0 {
		t.Fatal("the handler does not look as it did")
	}
	code := append([]byte{0x41, 0xbf, 1, 0, 0, 0, 0x49, 0xbe}, le64(windowBells)...) // mov r15d, 1; mov r14, windowBells: no bell is rung
	code = append(append(code, 0x49, 0xbc), le64(area+0x2000)...)                    // mov r12, area+0x2000
	code = append(code, 0x49, 0xc7, 0x84, 0x24, 248, 0, 0, 0)                        // mov qword [r12+248], a word to sleep on
	code = append(code, le64(windowBells + offNaps + 4*(numNaps-1))[:4]...)
	code = append(append(code, 0x41, 0xc7, 0x04, 0x24, 1, 0, 0, 0, 0x48, 0xbb), le64(area)...) // mov dword [r12], 1; mov rbx, area
	code = append(append(code, 0xc7, 0x03, 1, 0, 0, 0, 0x48, 0xb8), le64(codeAddr+handlerOff+uint64(look))...)
	h, s, a := newGuest(t, append(code, 0xff, 0xe0)) // mov dword [rbx], 1; mov rax, look; jmp rax
	for a.Control().State.Load() != StateEvent {
		time.Sleep(time.Millisecond)
	}
	a.Release(false)
	s.Release()
	for deadline := time.Now().Add(20 * time.Second); !s.dead.Load(); time.Sleep(10 * time.Millisecond) {
		if s.renewed() {
			t.Fatal("a stub is ready for the next address space while a guest thread of the last runs in it")
		}
		if time.Now().After(deadline) {
			t.Fatal("the stub is still there")
		}
	}
	if other, err := h.NewAddressSpace(); err != nil || other == s {
		t.Errorf("the stub is used again (%v)", err)
	}
}

// TestCPUs: guest threads stay on the CPUs that the sandbox was started on, also in a stub that is used again.
func TestCPUs(t *testing.T) {
	looks = true
	defer func() { looks = false }()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil || all.Count() < 2 {
		t.Skipf("of one CPU nobody can leave (%v)", err)
	}
	for cpu := 0; one.Count() == 0; cpu++ {
		if all.IsSet(cpu) {
			one.Set(cpu)
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	defer unix.SchedSetaffinity(0, &all)
	_, s, a := newGuest(t, []byte{0xeb, 0xfe}) // jmp .
	unix.Tgkill(s.pid, a.tid, unix.SIGUSR2)
	if done, err := a.AwaitFor(5 * time.Second); err != nil || !done {
		t.Fatalf("%v, %v", done, err)
	}
	a.Release(false)
	s.Release()
	for deadline := time.Now().Add(20 * time.Second); !s.renewed(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the stub is not used again")
		}
	}
	s.adopt()
	s.orderMu.Lock()
	tids := slices.Clone(s.tids)
	s.orderMu.Unlock()
	if len(tids) == 0 {
		t.Fatal("it has no guest threads")
	}
	for _, tid := range tids {
		var set unix.CPUSet
		if err := unix.SchedGetaffinity(tid, &set); err != nil || set != one {
			t.Errorf("guest thread %d may run on %d CPUs (%v)", tid, set.Count(), err)
		}
	}
}

// TestHelpersCalls: a guest thread that jumps to the helper's SYSCALL instruction makes none of the calls that the helper may make; nor does it from the entry
// code get rid of what keeps it from that.
func TestHelpersCalls(t *testing.T) {
	pages := codePages()
	at := func(code, page []byte) uint64 {
		i := bytes.Index(page, code)
		if i < 0 {
			t.Fatal("the code is not what it was")
		}
		return uint64(i + len(code) - 2)
	}
	helper := helperAddr + at([]byte{0x4d, 0x8b, 0x4f, 0x30, 0x0f, 0x05}, pages[pageSize:2*pageSize]) // MOVQ 48(R15), R9; SYSCALL
	entry := codeAddr + at([]byte{0x0f, 0x05}, pages[:pageSize])
	answer := answerAddr + at([]byte{0xe3, 2, 0x0f, 0x05}, pages[2*pageSize:3*pageSize]) // JRCXZ over; SYSCALL
	const off, on, own = unix.PR_SET_SYSCALL_USER_DISPATCH, unix.PR_SYS_DISPATCH_ON, stubBase
	for _, c := range []struct {
		name string
		at   uint64
		args [7]uint64 // the number first
		code byte      // si_code
	}{
		{"mprotect", helper, [7]uint64{unix.SYS_MPROTECT, codeAt, pageSize, unix.PROT_READ | unix.PROT_WRITE}, 2},
		{"munmap", helper, [7]uint64{unix.SYS_MUNMAP, codeAt, pageSize}, 2},
		{"clone of a thread", helper, [7]uint64{unix.SYS_CLONE, guestFlags}, 2},
		{"clone of a stub", helper, [7]uint64{unix.SYS_CLONE, forkFlags}, 2},
		{"user dispatch off", helper, [7]uint64{unix.SYS_PRCTL, off, unix.PR_SYS_DISPATCH_OFF}, 2},
		{"user dispatch on", helper, [7]uint64{unix.SYS_PRCTL, off, on, own, pageSize}, 2},
		{"sigaltstack", helper, [7]uint64{unix.SYS_SIGALTSTACK}, 2},
		{"exit_group", helper, [7]uint64{unix.SYS_EXIT_GROUP}, 2},
		{"user dispatch off, by the entry code", entry, [7]uint64{unix.SYS_PRCTL, off, unix.PR_SYS_DISPATCH_OFF}, 1},
		{"user dispatch on, by the entry code", entry, [7]uint64{unix.SYS_PRCTL, off, on, own, 2 * pageSize}, 1},
		{"mprotect, by the entry code", entry, [7]uint64{unix.SYS_MPROTECT, codeAt, pageSize, 7}, 1},
		{"clone, by the entry code", entry, [7]uint64{unix.SYS_CLONE, guestFlags}, 1},
		{"user dispatch off, by the answers", answer, [7]uint64{unix.SYS_PRCTL, off, unix.PR_SYS_DISPATCH_OFF}, 1},
		{"munmap, by the answers", answer, [7]uint64{unix.SYS_MUNMAP, codeAt, pageSize}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var code []byte
			for i, mov := range [][2]byte{{0x48, 0xb8}, {0x48, 0xbf}, {0x48, 0xbe}, {0x48, 0xba}, {0x49, 0xba}, {0x49, 0xb8}, {0x49, 0xb9}} {
				code = append(append(code, mov[:]...), le64(c.args[i])...)
			}
			code = append(append(code, 0x48, 0xbb), le64(c.at)...) // mov rbx, at; jmp rbx
			_, _, a := newGuest(t, append(code, 0xff, 0xe3))
			done, err := a.AwaitFor(5 * time.Second)
			if err != nil || !done || unix.Signal(a.Control().Signal) != unix.SIGSYS {
				t.Fatalf("done %v, error %v, signal %d", done, err, a.Control().Signal)
			}
			if si := a.Bytes(a.Control().Siginfo, 16); si == nil || si[8] != c.code {
				t.Errorf("siginfo %v: si_code should be %d", si, c.code)
			}
		})
	}
}

func le64(v uint64) (b []byte) {
	for i := range 8 {
		b = append(b, byte(v>>(8*i)))
	}
	return b
}

// TestIdleThreads: nobody sleeps for a thread that waits to be used, which therefore rings a bell with its first call.
func TestIdleThreads(t *testing.T) {
	h, _, _ := newGuest(t, []byte{0xeb, 0xfe}) // JMP to itself
	for range 20 {
		s, err := h.create()
		if err != nil {
			t.Fatal(err)
		}
		s.adopt()
		s.orderMu.Lock()
		for _, a := range s.idle {
			if n := a.Control().SentrySleeps.Load(); n != 0 {
				t.Errorf("somebody sleeps for a thread that is idle: %d", n)
			}
		}
		s.orderMu.Unlock()
		s.kill()
	}
}

// TestPopulate: the host has the pages of a mapping that is to be populated, and of no other.
func TestPopulate(t *testing.T) {
	_, s, _ := newGuest(t, []byte{0xeb, 0xfe})
	fd, err := memfile("pages", make([]byte, 64*pageSize))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for i, at := range []hostarch.Addr{0x50000000, 0x50000000 + 16*pageSize, 0x60000000} {
		ar := hostarch.AddrRange{Start: at, End: at + 16*pageSize}
		s.Map(ar, fd, uint64(i)*16*pageSize, hostarch.ReadWrite)
		if i > 0 {
			s.Populate(ar) // the second is joined to the first, and left alone
		}
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", s.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		at string
		kB int
	}{{"50000000-50020000 ", 0}, {"60000000-60010000 ", 64}} {
		_, entry, _ := strings.Cut(string(b), c.at)
		_, rss, _ := strings.Cut(entry, "Rss:")
		var kB int
		if fmt.Sscan(rss, &kB); kB != c.kB {
			t.Errorf("%s%d kB are there, not %d", c.at, kB, c.kB)
		}
	}
}
