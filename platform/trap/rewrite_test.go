package trap

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"

	"moat/platform"
	"moat/platform/stub"
)

const (
	codeAt = hostarch.Addr(0x7f0012340000)
	dataAt = hostarch.Addr(0x600000)
	page   = hostarch.PageSize
)

// data is the page at dataAt of the present test.
var data []byte

// withCode runs fn with a thread whose code page, rewritten at the given offsets, is code.
func withCode(t testing.TB, code []byte, at []int, fn func(p *Platform, th platform.Thread, r *platform.Regs)) {
	pl, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer pl.Close()
	p := pl.(*Platform)
	text, ok := p.NewText()
	if !ok {
		t.Fatal("no text")
	}
	const off = 5 * page // of the page in the text
	mem := make([]byte, 2*page)
	copy(mem, code)
	for _, a := range at {
		if _, _, ok := p.Rewrite(text, mem[:page], off, a); !ok {
			t.Fatalf("the call at %#x is not rewritten", a)
		}
	}
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, mem); err != nil {
		t.Fatal(err)
	}
	if data, err = unix.Mmap(fd, page, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(data)
	as, err := p.NewAddressSpace()
	if err != nil {
		t.Fatal(err)
	}
	defer as.Release()
	as.Map(hostarch.AddrRange{Start: codeAt, End: codeAt + page}, fd, 0, hostarch.ReadExecute)
	as.Map(hostarch.AddrRange{Start: dataAt, End: dataAt + page}, fd, page, hostarch.ReadWrite)
	as.SetText(text, codeAt-off)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		th, err := as.NewThread()
		if err != nil {
			t.Error(err)
			return
		}
		defer th.Release()
		fn(p, th, &platform.Regs{Rip: uint64(codeAt), Rsp: uint64(dataAt) + page - 64, Eflags: 0x202})
	}()
	<-done
}

// wrapper is read(2) as glibc has it, with padding; its SYSCALL is at 2.
var wrapper = []byte{
	0x31, 0xc0, 0x0f, 0x05, // XOR EAX, EAX; SYSCALL
	0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff, // CMP RAX, -4096
	0x77, 0x01, // JA +1
	0xc3,             // RET
	0xeb, 0xf1, 0x90, // JMP to the start
	0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0, 0x66, 0x90, // NOPs
	0x90, 0x90, 0x90, 0x90,
}

// loop makes call nr for ever; its SYSCALL is at 9.
func loop(nr uint32) []byte {
	b := []byte{0x90, 0x90, 0x90, 0x90, 0xb8, 0, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7}
	binary.LittleEndian.PutUint32(b[5:], nr)
	return b
}

// leaLoop makes call AX for ever, its address argument loaded by lea, of 7 bytes, right before the SYSCALL at 11.
func leaLoop(lea ...byte) []byte {
	return append(append([]byte{0x90, 0x90, 0x90, 0x90}, lea...), 0x0f, 0x05, 0xeb, 0xf5)
}

func run(t testing.TB, th platform.Thread, r *platform.Regs) platform.Event {
	ev, err := th.Run(r)
	if err != nil {
		t.Fatal(err)
	}
	return ev
}

func TestRegisters(t *testing.T) {
	for name, c := range map[string]struct {
		code []byte
		at   int
		nr   uint64
	}{"mov": {loop(300), 9, 300}, "short": {wrapper, 2, 0}} {
		t.Run(name, func(t *testing.T) {
			withCode(t, c.code, []int{c.at}, func(p *Platform, th platform.Thread, r *platform.Regs) {
				for i := range 3 {
					r.Rip = uint64(codeAt)
					v := func(n uint64) uint64 { return uint64(i)<<32 + n }
					want := platform.Regs{Rbx: v(1), Rdx: v(3), Rsi: v(4), Rdi: v(5), Rbp: v(6), R8: v(8), R9: v(9), R10: v(10), R12: v(12),
						R13: v(13), R14: v(14), R15: v(15), Rsp: r.Rsp, Eflags: 0x202, Fs_base: 0x1000 * uint64(i), Cs: userCS, Ss: userSS}
					if name == "mov" {
						want.Eflags |= 0xc5 + 0x810 // carry, parity, zero, sign, adjust, overflow: a call changes no flags
					}
					rip := r.Rip
					*r = want
					r.Rip = rip
					ev := run(t, th, r)
					want.Rip = uint64(codeAt) + uint64(c.at) + 2
					want.Rcx, want.R11, want.Eflags = want.Rip, r.R11, r.Eflags
					if name == "mov" && r.Eflags&0x8d5 != 0x8d5 {
						t.Errorf("flags %#x", r.Eflags)
					}
					want.Orig_rax, want.Rax = c.nr, ^uint64(unix.ENOSYS)+1
					if ev.Kind != platform.EventSyscall || ev.Trapped || *r != want {
						t.Errorf("event %+v\n got %+v\nwant %+v", ev, *r, want)
					}
				}
			})
		})
	}
}

// TestMidway jumps to the SYSCALL behind a rewritten MOV.
func TestMidway(t *testing.T) {
	withCode(t, loop(300), []int{9}, func(p *Platform, th platform.Thread, r *platform.Regs) {
		r.Rip += 9
		if ev := run(t, th, r); ev.Kind != platform.EventSignal || ev.Signal != unix.SIGILL || r.Rip != uint64(codeAt)+9 {
			t.Errorf("event %+v at %#x", ev, r.Rip)
		}
	})
}

// TestLea: what an LEA that a jump has replaced loads is there, also with a GS base of the guest's, and who jumps to the SYSCALL behind it makes the call that stands there.
func TestLea(t *testing.T) {
	for name, c := range map[string]struct {
		code []byte
		reg  func(r *platform.Regs) uint64
		want uint64
	}{
		"rip":     {leaLoop(0x48, 0x8d, 0x35, 0xf0, 0xff, 0xff, 0xff), func(r *platform.Regs) uint64 { return r.Rsi }, uint64(codeAt) + 11 - 16},
		"rip r8":  {leaLoop(0x4c, 0x8d, 0x05, 0, 1, 0, 0), func(r *platform.Regs) uint64 { return r.R8 }, uint64(codeAt) + 11 + 256},
		"rbx":     {leaLoop(0x48, 0x8d, 0xb3, 0xf0, 8, 0, 0), func(r *platform.Regs) uint64 { return r.Rsi }, 0x8f0 + 0x5000},
		"r10 rbx": {leaLoop(0x4c, 0x8d, 0x93, 0xf0, 8, 0, 0), func(r *platform.Regs) uint64 { return r.R10 }, 0x8f0 + 0x5000},
	} {
		t.Run(name, func(t *testing.T) {
			withCode(t, c.code, []int{11}, func(p *Platform, th platform.Thread, r *platform.Regs) {
				for _, gs := range []uint64{0, 0, uint64(dataAt), 0} {
					r.Rip, r.Rax, r.Rbx, r.Rsi, r.R8, r.R10, r.Gs_base = uint64(codeAt), 300, 0x5000, 0, 0, 0, gs
					ev := run(t, th, r)
					if ev.Kind != platform.EventSyscall || ev.Trapped || r.Orig_rax != 300 || r.Rip != uint64(codeAt)+13 || c.reg(r) != c.want || r.Rbx != 0x5000 || r.Gs_base != gs {
						t.Errorf("GS base %#x: event %+v, call %d at %#x, the register %#x", gs, ev, r.Orig_rax, r.Rip, c.reg(r))
					}
				}
				r.Rip, r.Rax = uint64(codeAt)+11, 301
				if ev := run(t, th, r); ev.Kind != platform.EventSyscall || !ev.Trapped || r.Orig_rax != 301 || c.reg(r) != c.want {
					t.Errorf("behind it: event %+v, call %d", ev, r.Orig_rax)
				}
			})
		})
	}
}

// TestGS makes a call with a GS base of the guest's.
func TestGS(t *testing.T) {
	for _, gs := range []uint64{uint64(dataAt), 0x123456000} {
		withCode(t, loop(300), []int{9}, func(p *Platform, th platform.Thread, r *platform.Regs) {
			r.Gs_base = gs
			for range 2 {
				ev := run(t, th, r)
				if ev.Kind != platform.EventSyscall || r.Orig_rax != 300 || r.Gs_base != gs || r.Rip != uint64(codeAt)+11 {
					t.Errorf("event %+v, call %d, GS base %#x, RIP %#x", ev, r.Orig_rax, r.Gs_base, r.Rip)
				}
			}
			r.Gs_base = 0
			if ev := run(t, th, r); ev.Kind != platform.EventSyscall || r.Gs_base != 0 {
				t.Errorf("event %+v, GS base %#x", ev, r.Gs_base)
			}
		})
	}
}

// TestState asks for the extended state behind a call.
func TestState(t *testing.T) {
	withCode(t, loop(300), []int{9}, func(p *Platform, th platform.Thread, r *platform.Regs) {
		run(t, th, r)
		st, err := th.FPState()
		if err != nil {
			t.Fatal(err)
		}
		st = bytes.Clone(st)
		st[160] = 0x5a // XMM0
		st[512] |= 2
		if err := th.SetFPState(st); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if ev := run(t, th, r); ev.Kind != platform.EventSyscall || r.Rip != uint64(codeAt)+11 {
				t.Fatalf("event %+v at %#x", ev, r.Rip)
			}
			if got, err := th.FPState(); err != nil || got[160] != 0x5a {
				t.Errorf("XMM0 %#x, %v", got[160], err)
			}
		}
	})
}

// TestSavedState: calls that may send their caller a signal, or make a thread, bring the extended state along, and need no frame for it.
func TestSavedState(t *testing.T) {
	for _, nr := range []uint32{unix.SYS_CLONE, unix.SYS_KILL, unix.SYS_TGKILL, unix.SYS_CLONE3} {
		withCode(t, loop(nr), []int{9}, func(p *Platform, th platform.Thread, r *platform.Regs) {
			st, err := th.FPState()
			if err != nil {
				t.Fatal(err)
			}
			st[160] = 0x5a // XMM0
			st[512] |= 2
			if err := th.SetFPState(st); err != nil {
				t.Fatal(err)
			}
			want := bytes.Clone(st[:416])
			for range 2 {
				run(t, th, r)
				was := th.(*thread).n.frames
				got, err := th.FPState()
				if err != nil || th.(*thread).n.frames != was || !bytes.Equal(got[160:416], want[160:]) {
					t.Errorf("call %d: %d frames, XMM %x, %v", nr, th.(*thread).n.frames-was, got[160:176], err)
				}
			}
		})
	}
}

// TestInPlace interrupts a thread that gets its answers in place, wherever it is.
func TestInPlace(t *testing.T) {
	withCode(t, loop(unix.SYS_GETPID), []int{9}, func(p *Platform, th platform.Thread, r *platform.Regs) {
		th.SetIdentity(platform.Identity{PID: 4711, Valid: true})
		in := false
		for i := range 2000 {
			go func() {
				time.Sleep(time.Duration(i%7) * time.Microsecond)
				th.Interrupt()
			}()
			ev := run(t, th, r)
			for ev.Kind == platform.EventSyscall && r.Orig_rax == unix.SYS_GETPID { // not answered yet
				r.Rax = 4711
				ev = run(t, th, r)
			}
			if ev.Kind != platform.EventInterrupted {
				t.Fatalf("event %+v", ev)
			}
			if r.Rip < uint64(codeAt) || r.Rip > uint64(codeAt)+13 {
				t.Fatalf("interrupted at %#x", r.Rip)
			}
			in = in || r.Rax == 4711
		}
		if !in {
			t.Error("no answer was seen")
		}
		th.SetIdentity(platform.Identity{})
		if ev := run(t, th, r); ev.Kind != platform.EventSyscall || r.Orig_rax != unix.SYS_GETPID {
			t.Errorf("event %+v", ev)
		}
	})
}

// TestYieldInPlace interrupts a thread that yields, with and without a crowd for which the host is asked: no call is made twice, none returns its number.
func TestYieldInPlace(t *testing.T) {
	// INC RBX; MOV EAX, 24; SYSCALL; ADD RBP, RAX; JMP
	code := []byte{0x48, 0xff, 0xc3, 0x90, 0xb8, 24, 0, 0, 0, 0x0f, 0x05, 0x48, 0x01, 0xc5, 0xeb, 0xf0}
	withCode(t, code, []int{9}, func(p *Platform, th platform.Thread, r *platform.Regs) {
		th.SetIdentity(platform.Identity{Valid: true})
		calls := uint64(0)
		for i := range 2000 {
			p.board.bells.Crowded.Store(uint32(i / 500 % 2))
			go func() {
				time.Sleep(time.Duration(i%7) * time.Microsecond)
				th.Interrupt()
			}()
			ev := run(t, th, r)
			for ; ev.Kind == platform.EventSyscall && r.Orig_rax == unix.SYS_SCHED_YIELD; ev = run(t, th, r) {
				r.Rax = 0
				calls++
			}
			if ev.Kind != platform.EventInterrupted || r.Rip < uint64(codeAt) || r.Rip >= uint64(codeAt)+16 || r.Rbp != 0 || r.Rax != 0 && r.Rax != 24 {
				t.Fatalf("event %+v, registers %+v", ev, r)
			}
		}
		if calls >= r.Rbx/2 {
			t.Errorf("%d of %d calls were not made in place", calls, r.Rbx)
		}
		p.board.bells.Crowded.Store(0)
	})
}

// TestSleepInPlace interrupts a thread that sleeps in place, at any moment: no register changes but those that a call does, no call returns its number or an error, and the
// time asleep is not taken for work. What may not be made in place is a call, with its arguments.
func TestSleepInPlace(t *testing.T) {
	// INC RBX; MOV EAX, nr; SYSCALL; ADD RBP, RAX; JMP
	code := func(nr byte) []byte {
		return []byte{0x48, 0xff, 0xc3, 0x90, 0xb8, nr, 0, 0, 0, 0x0f, 0x05, 0x48, 0x01, 0xc5, 0xeb, 0xf0}
	}
	for _, nr := range []byte{unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP} {
		withCode(t, code(nr), []int{9}, func(p *Platform, th platform.Thread, r *platform.Regs) {
			th.SetIdentity(platform.Identity{Valid: true, Sleeps: 50 * time.Microsecond})
			put(data, 0, 0)
			put(data, 8, 20_000)
			r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9, r.R12 = uint64(dataAt), 0, 3, 4, 5, 6, 7
			if nr == unix.SYS_CLOCK_NANOSLEEP {
				r.Rdi, r.Rdx = unix.CLOCK_MONOTONIC, uint64(dataAt)
			}
			args := func() [7]uint64 { return [...]uint64{r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9, r.R12} }
			was, calls, began, guest := args(), uint64(0), time.Now(), th.Clock().Guest()
			for i := range 1000 {
				go func() {
					time.Sleep(time.Duration(i%7) * 30 * time.Microsecond)
					th.Interrupt()
				}()
				ev := run(t, th, r)
				for ; ev.Kind == platform.EventSyscall && r.Orig_rax == uint64(nr); ev = run(t, th, r) {
					if args() != was {
						t.Fatalf("a call with %x, not %x", args(), was)
					}
					r.Rax = 0
					calls++
				}
				if ev.Kind != platform.EventInterrupted || r.Rip < uint64(codeAt) || r.Rip >= uint64(codeAt)+16 || r.Rbp != 0 || r.Rax != 0 && r.Rax != uint64(nr) || args() != was {
					t.Fatalf("event %+v, registers %+v", ev, r)
				}
			}
			if calls >= r.Rbx || r.Rbx-calls < 100 {
				t.Errorf("%d of %d calls were not made in place", calls, r.Rbx)
			}
			slept := time.Duration(r.Rbx-calls-min(1000, r.Rbx-calls)) * 20 * time.Microsecond // but for those that were interrupted
			if all, worked := time.Since(began), th.Clock().Guest()-guest; worked > all-slept*99/100 {
				t.Errorf("%v of %v were work, %v sleep", worked, all, slept)
			}
			th.Clock().Idle(nil)
			for _, c := range [][2]uint64{{0, 50_001}, {0, 1 << 63}, {1, 0}, {1 << 63, 0}} {
				put(data, 0, c[0])
				put(data, 8, c[1])
				if ev := run(t, th, r); ev.Kind != platform.EventSyscall || r.Orig_rax != uint64(nr) || args() != was {
					t.Errorf("sleep of %x: event %+v, arguments %x", c, ev, args())
				}
			}
			put(data, 0, 0)
			put(data, 8, 0)
			at := &r.Rdi
			if nr == unix.SYS_CLOCK_NANOSLEEP {
				at = &r.Rdx
				r.Rsi = unix.TIMER_ABSTIME
				if ev := run(t, th, r); ev.Kind != platform.EventSyscall || r.Rsi != unix.TIMER_ABSTIME {
					t.Errorf("an absolute time: event %+v", ev)
				}
				r.Rsi, r.Rdi = 0, unix.CLOCK_PROCESS_CPUTIME_ID
				if ev := run(t, th, r); ev.Kind != platform.EventSyscall || r.Rdi != unix.CLOCK_PROCESS_CPUTIME_ID {
					t.Errorf("another clock: event %+v", ev)
				}
				r.Rdi = unix.CLOCK_MONOTONIC
			}
			*at = 8
			if ev := run(t, th, r); ev.Kind != platform.EventSyscall || *at != 8 {
				t.Errorf("a bad pointer: event %+v", ev)
			}
			*at = uint64(dataAt)
			th.SetIdentity(platform.Identity{Valid: true})
			put(data, 8, 1)
			if ev := run(t, th, r); ev.Kind != platform.EventSyscall {
				t.Errorf("where none may be made in place: event %+v", ev)
			}
		})
	}
}

// TestCPUInPlace: getcpu(2) with each of its pointers, good, bad or none; flags and registers stay.
func TestCPUInPlace(t *testing.T) {
	// MOV EAX, 309; SYSCALL; UD2
	code := []byte{0x90, 0x90, 0x90, 0x90, 0xb8, 0x35, 1, 0, 0, 0x0f, 0x05, 0x0f, 0x0b}
	withCode(t, code, []int{9}, func(p *Platform, th platform.Thread, r *platform.Regs) {
		th.SetIdentity(platform.Identity{Valid: true, CPU: 0x1234})
		was := *r
		const cpu, node = uint64(dataAt) + 8, uint64(dataAt) + 16
		for _, c := range [][2]uint64{{cpu, node}, {0, node}, {cpu, 0}, {0, 0}, {8, node}, {cpu, 8}, {1 << 63, 0}} {
			*r = was
			r.Rdi, r.Rsi, r.Rdx, r.R8, r.Eflags = c[0], c[1], 3, 8, 0x202|0x8d5
			put(data, 8, ^uint64(0))
			put(data, 16, ^uint64(0))
			ev := run(t, th, r)
			bad := (c[0] != 0 && c[0] != cpu) || (c[1] != 0 && c[1] != node)
			if bad && (ev.Kind != platform.EventSyscall || r.Orig_rax != unix.SYS_GETCPU) || !bad && (ev.Kind != platform.EventSignal || r.Rax != 0) ||
				r.Rip != uint64(codeAt)+11 || r.Rdi != c[0] || r.Rsi != c[1] || r.Rdx != 3 || r.R8 != 8 || r.Rsp != was.Rsp || r.Eflags&0x8d5 != 0x8d5 {
				t.Errorf("%#x: event %+v, registers %+v", c, ev, r)
			}
			if got := get(data, 8); !bad && got != ^uint64(0)&^0xffffffff|0x1234 && c[0] != 0 {
				t.Errorf("%#x: CPU %#x", c, got)
			}
			if got := get(data, 16); !bad && got != ^uint64(0)&^0xffffffff && c[1] != 0 {
				t.Errorf("%#x: node %#x", c, got)
			}
		}
	})
}

// disturb interrupts th at any moment, with a signal pending now and then, until quiet is called.
func disturb(th platform.Thread) (quiet func()) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(i%50) * time.Microsecond):
				th.Signals().Pending.Store(uint32(i / 8 % 2))
				th.Interrupt()
			}
		}
	}()
	return func() {
		close(stop)
		<-stopped
	}
}

// TestMaskInPlace changes the signal mask in place, with interrupts at any moment, and counts.
func TestMaskInPlace(t *testing.T) {
	// INC RBX; MOV EAX, 14; SYSCALL; ADD RBP, [RDX]; XOR [RSI], 16; JMP: the old mask is 16 every other time, but for the first
	code := []byte{0x48, 0xff, 0xc3, 0x90, 0xb8, 14, 0, 0, 0, 0x0f, 0x05, 0x48, 0x03, 0x2a, 0x48, 0x83, 0x36, 0x10, 0xeb, 0xec}
	withCode(t, code, []int{9}, func(p *Platform, th platform.Thread, r *platform.Regs) {
		w := th.Signals()
		th.SetIdentity(platform.Identity{Valid: true})
		quiet := disturb(th)
		set, old := uint64(dataAt), uint64(dataAt)+8
		r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9 = 2, set, old, 8, 88, 99
		was, in, calls, interrupts := *r, uint64(0), uint64(0), 0
		for in < 2000 || interrupts < 500 {
			ev := run(t, th, r)
			if ev.Kind == platform.EventSyscall && r.Orig_rax == 14 { // as the sentry does it
				m := get(data, 0)
				put(data, 8, w.Mask.Swap(m))
				r.Rax = 0
				calls++
				continue
			}
			if ev.Kind != platform.EventInterrupted || r.Rip < uint64(codeAt) || r.Rip >= uint64(codeAt)+20 {
				t.Fatalf("event %+v at %#x", ev, r.Rip)
			}
			interrupts++
			in = r.Rbx - calls
			if r.Rsp != was.Rsp || r.R8 != 88 || r.R9 != 99 || r.Rsi != set || r.Rdx != old || r.Rax != 0 && r.Rax != 14 {
				t.Fatalf("registers %+v", r)
			}
			if n, k := int64(r.Rbp/16), int64(r.Rbx); n != (k-1)/2 && n != max(k-2, 0)/2 {
				t.Fatalf("%d old masks after %d calls, %d of them in place", n, r.Rbx, in)
			}
		}
		quiet()
		// What the sentry must see.
		w.Pending.Store(1)
		for ev := run(t, th, r); ev.Kind != platform.EventSyscall; ev = run(t, th, r) {
		}
		if r.Orig_rax != 14 {
			t.Errorf("call %d", r.Orig_rax)
		}
		w.Pending.Store(0)
		for i, bad := range []func(){func() { r.Rsi = 8 }, func() { r.Rdx = 8 }, func() { r.Rdx = 1 << 63 }, func() { r.R10 = 4 }, func() { r.Rdi = 3 }} {
			*r = was
			r.Rip = uint64(codeAt)
			r.Rdi, r.Rsi, r.Rdx, r.R10, r.Eflags = 2, set, old, 8, 0x202|0x8d5
			bad()
			want := *r
			w.Mask.Store(0x300)
			ev := run(t, th, r)
			want.Rip, want.Rax, want.Orig_rax, want.Rbx = uint64(codeAt)+11, ^uint64(unix.ENOSYS)+1, 14, r.Rbx
			want.Rcx, want.R11, want.Eflags, want.Cs, want.Ss = want.Rip, r.R11, r.Eflags, userCS, userSS
			if ev.Kind != platform.EventSyscall || *r != want || w.Mask.Load() != 0x300 {
				t.Errorf("%d: event %+v, mask %#x\n got %+v\nwant %+v", i, ev, w.Mask.Load(), r, want)
			}
		}
	})
}

// TestActionInPlace changes a signal's action in place, with interrupts at any moment: no call is made twice, no action is ever half another, and what the guest may not
// change without telling it does not.
func TestActionInPlace(t *testing.T) {
	// INC RBX; MOV EAX, 13; SYSCALL; ADD RBP, [RDX]; XOR [RSI], 16; XOR [RSI+16], 16; XOR [RSI+24], 16; JMP
	code := []byte{0x48, 0xff, 0xc3, 0x90, 0xb8, 13, 0, 0, 0, 0x0f, 0x05, 0x48, 0x03, 0x2a, 0x48, 0x83, 0x36, 0x10,
		0x48, 0x83, 0x76, 0x10, 0x10, 0x48, 0x83, 0x76, 0x18, 0x10, 0xeb, 0xe2}
	withCode(t, code, []int{9}, func(p *Platform, th platform.Thread, r *platform.Regs) {
		w := th.Signals()
		w.Actions.Lent.Store(1)
		th.SetIdentity(platform.Identity{Valid: true})
		quiet := disturb(th)
		const sig, flags = 10, 0x04000000
		action := &w.Actions.Of[sig-1]
		act, old := uint64(dataAt), uint64(dataAt)+64
		for i, v := range []uint64{0x1000, flags, 0x2000, 0x3000} {
			put(data, 8*i, v)
		}
		r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9, r.R12 = sig, act, old, 8, 88, 99, 12
		was, calls, interrupts := *r, uint64(0), 0
		sum := func(n uint64) uint64 { return (max(n, 1)-1)*0x1000 + 16*((max(n, 1)-1)/2) }
		for r.Rbx-calls < 2000 || interrupts < 500 {
			ev := run(t, th, r)
			if h := action[0].Load(); r.Rbx > 1 && (action[1].Load() != flags || action[2].Load() != h+0x1000 || action[3].Load() != h+0x2000) {
				t.Fatalf("action %#x %#x %#x %#x", h, action[1].Load(), action[2].Load(), action[3].Load())
			}
			if ev.Kind == platform.EventSyscall && r.Orig_rax == 13 { // as the sentry does it
				for i := range action {
					v := get(data, 8*i)
					put(data, 64+8*i, action[i].Swap(v))
				}
				r.Rax = 0
				calls++
				continue
			}
			if ev.Kind != platform.EventInterrupted || r.Rip < uint64(codeAt) || r.Rip >= uint64(codeAt)+30 {
				t.Fatalf("event %+v at %#x", ev, r.Rip)
			}
			interrupts++
			if r.Rsp != was.Rsp || r.R8 != 88 || r.R9 != 99 || r.R12 != 12 || r.Rsi != act || r.Rdx != old || r.Rax != 0 && r.Rax != 13 {
				t.Fatalf("registers %+v", r)
			}
			if r.Rbp != sum(r.Rbx) && r.Rbp != sum(r.Rbx-1) {
				t.Fatalf("old actions add up to %#x after %d calls, not %#x", r.Rbp, r.Rbx, sum(r.Rbx))
			}
		}
		quiet()
	})
}

// TestActionLimits: which changes of actions are made in place, to the letter, and which are left to the sentry, untouched.
func TestActionLimits(t *testing.T) {
	// MOV EAX, 13; SYSCALL; UD2
	code := []byte{0x90, 0x90, 0x90, 0x90, 0xb8, 13, 0, 0, 0, 0x0f, 0x05, 0x0f, 0x0b}
	withCode(t, code, []int{9}, func(p *Platform, th platform.Thread, r *platform.Regs) {
		w := th.Signals()
		th.SetIdentity(platform.Identity{Valid: true})
		const act, old, sig = uint64(dataAt), uint64(dataAt) + 64, 10
		was := *r
		was.Rdi, was.Rsi, was.Rdx, was.R10, was.R8, was.R9, was.Rbx, was.Rbp, was.R12 = sig, act, old, 8, 88, 99, 55, 66, 12
		was.Rip, was.Eflags = uint64(codeAt), 0x202|0x8d5
		for name, c := range map[string]struct {
			change  func()
			inPlace bool
		}{
			"as it is": {func() {}, true}, "read": {func() { r.Rsi = 0 }, true}, "read of SIGKILL": {func() { r.Rsi, r.Rdi = 0, 9 }, true},
			"read while pending": {func() { w.Pending.Store(1); r.Rsi = 0 }, true},
			"last":               {func() { r.Rdi = 64 }, true}, "an int": {func() { r.Rdi |= 1 << 40 }, true}, "adjacent": {func() { r.Rdx = r.Rsi + 32 }, true},
			"pending": {func() { w.Pending.Store(1) }, false}, "not lent": {func() { w.Actions.Lent.Store(0) }, false}, "size": {func() { r.R10 = 4 }, false},
			"SIGKILL": {func() { r.Rdi = 9 }, false}, "SIGSTOP": {func() { r.Rdi = 19 }, false}, "0": {func() { r.Rdi = 0 }, false}, "65": {func() { r.Rdi = 65 }, false},
			"bad action": {func() { r.Rsi = 8 }, false}, "bad old": {func() { r.Rdx = 8 }, false}, "non-canonical": {func() { r.Rdx = 1 << 63 }, false},
			"same": {func() { r.Rdx = r.Rsi }, false}, "nothing": {func() { r.Rsi, r.Rdx = 0, 0 }, false},
			"half old": {func() { r.Rdx = uint64(dataAt) + page - 16 }, false}, "half action": {func() { r.Rsi = uint64(dataAt) + page - 16 }, false},
			"SA_NOCLDWAIT": {func() { put(data, 8, 2) }, false}, "was SA_NOCLDSTOP": {func() { w.Actions.Of[sig-1][1].Store(1) }, false},
			"unknown flag": {func() { put(data, 8, 0x400) }, false}, "high flag": {func() { put(data, 8, 1<<40) }, false},
		} {
			*r = was
			for i, v := range []uint64{0x1000, 0xdc000804, 0x2000, ^uint64(0)} {
				put(data, 8*i, v)
			}
			clear(data[64:128])
			for i := range w.Actions.Of {
				w.Actions.Of[i].Set([4]uint64{uint64(i), 0x08000000, 5, 6})
			}
			w.Pending.Store(0)
			w.Actions.Lent.Store(1)
			c.change()
			want := *r
			actions := func() (v [64][4]uint64) {
				for i := range v {
					for j := range v[i] {
						v[i][j] = w.Actions.Of[i][j].Load()
					}
				}
				return v
			}
			expect := actions()
			ev := run(t, th, r)
			want.Rip, want.Cs, want.Ss = uint64(codeAt)+11, userCS, userSS
			want.Rcx, want.R11, want.Eflags = r.Rcx, r.R11, r.Eflags
			kind := platform.EventSyscall
			if want.Rax, want.Orig_rax = ^uint64(unix.ENOSYS)+1, 13; c.inPlace {
				want.Rax, want.Orig_rax, kind = 0, ^uint64(0), platform.EventSignal
				i := int(int32(r.Rdi)) - 1
				if was := expect[i]; r.Rdx != 0 {
					for j := range was {
						if got := get(data, int(r.Rdx-act)+8*j); got != was[j] {
							t.Errorf("%s: word %d of the old action is %#x, not %#x", name, j, got, was[j])
						}
					}
				}
				if r.Rsi != 0 {
					expect[i] = [4]uint64{0x1000, 0xdc000804, 0x2000, ^uint64(0x40100)}
				}
			}
			if ev.Kind != kind || *r != want || r.Eflags&0x8d5 != 0x8d5 {
				t.Errorf("%s: event %+v\n got %+v\nwant %+v", name, ev, r, want)
			}
			if got := actions(); got != expect {
				t.Errorf("%s: the actions are %#x", name, got)
			}
		}
	})
}

// TestForgedAction jumps into the code that changes an action, with what it has not checked: no word but an action's own is changed on behalf of a thread stopped there.
func TestForgedAction(t *testing.T) {
	// JMP R15; the entry code's page comes next
	code := []byte{0x41, 0xff, 0xe7}
	withCode(t, code, nil, func(p *Platform, th platform.Thread, r *platform.Regs) {
		page := make([]byte, page)
		if _, err := unix.ProcessVMReadv(th.(*thread).space.PID(), []unix.Iovec{{Base: &page[0], Len: uint64(len(page))}},
			[]unix.RemoteIovec{{Base: stub.AnswerAddr, Len: len(page)}}, 0); err != nil {
			t.Fatal(err)
		}
		at := bytes.Index(page, []byte{0x48, 0x89, 0x59, 0x10, 0x48, 0x89, 0x69, 0x18}) // MOV [RCX+16], RBX; MOV [RCX+24], RBP
		if at < 0 {
			t.Fatal("actionCode does not look as it did")
		}
		w := th.Signals()
		for _, sig := range []uint64{0, 65, 1 << 31, ^uint64(0), 64} {
			*r = platform.Regs{Rip: uint64(codeAt), Rsp: r.Rsp, Eflags: 0x202, R15: stub.AnswerAddr + uint64(at), Rcx: 8, Rdi: sig, R8: 1, R9: 2, Rbx: 3, Rbp: 4}
			ev := run(t, th, r) // RCX leads nowhere
			ok := ev.Kind == platform.EventFault
			for i := range w.Actions.Of {
				ok = ok && (w.Actions.Of[i][0].Load() == 1) == (i == 63 && sig == 64)
			}
			if !ok || w.Pending.Load() != 0 || w.Mask.Load() != 0 || w.Actions.Lent.Load() != 0 {
				t.Errorf("signal %#x: event %+v", sig, ev)
			}
		}
	})
}

// TestInterruptCall interrupts a thread that makes calls by callCode at any moment; no call and no register may be lost.
func TestInterruptCall(t *testing.T) {
	// INC RBX; MOV EAX, 300; SYSCALL; INC RBP; JMP
	code := []byte{0x48, 0xff, 0xc3, 0x90, 0xb8, 0x2c, 1, 0, 0, 0x0f, 0x05, 0x48, 0xff, 0xc5, 0xeb, 0xf0}
	withCode(t, code, []int{9}, func(p *Platform, th platform.Thread, r *platform.Regs) {
		stop := make(chan struct{})
		defer close(stop)
		go func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(time.Duration(i%50) * time.Microsecond):
					th.Interrupt()
				}
			}
		}()
		calls, interrupts := uint64(0), 0
		for calls < 20000 || interrupts < 200 {
			switch ev := run(t, th, r); ev.Kind {
			case platform.EventSyscall:
				calls++
				if r.Rbx != calls || r.Rbp != calls-1 || r.Orig_rax != 300 {
					t.Fatalf("call %d: RBX %d, RBP %d, nr %d", calls, r.Rbx, r.Rbp, r.Orig_rax)
				}
			case platform.EventInterrupted:
				interrupts++
				if r.Rip < uint64(codeAt) || r.Rip >= uint64(codeAt)+16 {
					t.Fatalf("interrupted at %#x", r.Rip)
				}
			default:
				t.Fatalf("event %+v at %#x", ev, r.Rip)
			}
		}
	})
}

func TestNotRewritten(t *testing.T) {
	for name, c := range map[string]struct {
		code []byte
		at   int
	}{
		"sigreturn":      {loop(unix.SYS_RT_SIGRETURN), 9},
		"part of r8":     {append([]byte{0x90, 0x90, 0x90, 0x41}, loop(1)[4:]...), 9},
		"no padding":     {bytes.Repeat([]byte{0x31, 0xc0, 0x0f, 0x05, 0xc3}, 100), 2},
		"padding is run": {append([]byte{0x31, 0xc0, 0x0f, 0x05}, bytes.Repeat([]byte{0x90}, 200)...), 2},
		"no call":        {loop(1), 7},
		"lea of itself":  {leaLoop(0x48, 0x8d, 0xb6, 0, 1, 0, 0), 11},
		"lea of rcx":     {leaLoop(0x48, 0x8d, 0x0d, 0, 1, 0, 0), 11},
		"part of an lea": {append([]byte{0x90, 0x90, 0x90, 0x67}, leaLoop(0x48, 0x8d, 0xb3, 0, 1, 0, 0)[4:]...), 11},
		"at the end":     {append(bytes.Repeat([]byte{0x90}, page-1), 0x0f), page - 1},
	} {
		p := &Platform{slots: newSlots(make([]byte, 1<<21))}
		code := append(bytes.Clone(c.code), make([]byte, page)...)[:page]
		was := bytes.Clone(code)
		if _, _, ok := p.Rewrite(0, code, 0, c.at); ok || !bytes.Equal(code, was) {
			t.Errorf("%s: rewritten", name)
		}
	}
}

func FuzzRewrite(f *testing.F) {
	f.Add(wrapper, 2)
	f.Add(loop(1), 9)
	f.Add(leaLoop(0x48, 0x8d, 0x35, 0, 1, 0, 0), 11)
	p := &Platform{slots: newSlots(make([]byte, 1<<21))}
	f.Fuzz(func(t *testing.T, code []byte, at int) {
		if len(code) > page {
			return
		}
		was := bytes.Clone(code)
		from, to, ok := p.Rewrite(0, code, 0, at)
		if !ok {
			from, to = 0, 0
		} else if from < 0 || from > at || to < at+2 || to > len(code) {
			t.Fatalf("[%d, %d) of %d for %d", from, to, len(code), at)
		}
		if !bytes.Equal(code[:from], was[:from]) || !bytes.Equal(code[to:], was[to:]) {
			t.Fatal("changed outside")
		}
		p.FreeText(0)
	})
}

func BenchmarkCall(b *testing.B) {
	withCode(b, loop(300), []int{9}, func(p *Platform, th platform.Thread, r *platform.Regs) {
		for b.Loop() {
			run(b, th, r)
		}
	})
}

// TestForgedMask: guest code that blocks the interrupt's signal by a forged signal frame, and computes, is found out: its stub ends.
func TestForgedMask(t *testing.T) {
	if testing.Short() {
		t.Skip("takes as long as an interrupt may go unanswered")
	}
	// MOV EAX, 15; JMP to the entry code's SYSCALL, on a frame in the data page; there JMP to itself
	code := []byte{0x90, 0x90, 0x90, 0x90, 0xb8, 15, 0, 0, 0, 0x90, 0x90, 0x41, 0xff, 0xe7, 0xeb, 0xfe}
	withCode(t, code, nil, func(p *Platform, th platform.Thread, r *platform.Regs) {
		uc := data[8:]
		put(uc, gRip, uint64(codeAt)+14)
		put(uc, gRsp, uint64(dataAt)+2048)
		put(uc, gEflags, 0x202)
		put(uc, gSegs, userCS|userSS<<48)
		put(uc, ucSigmask, ^uint64(0))
		entry := make([]byte, page)
		if _, err := unix.ProcessVMReadv(th.(*thread).space.PID(), []unix.Iovec{{Base: &entry[0], Len: page}}, []unix.RemoteIovec{{Base: stub.CodeAddr, Len: page}}, 0); err != nil {
			t.Fatal(err)
		}
		at := bytes.Index(entry, []byte{0x48, 0x8d, 0x64, 0x24, 8, 0xb8, 15}) // LEAQ 8(SP), SP; MOVL $SYS_rt_sigreturn, AX
		if at < 0 {
			t.Fatal("the handler does not look as it did")
		}
		r.Rsp, r.R15 = uint64(dataAt), stub.CodeAddr+uint64(at)
		done := make(chan error)
		go func() {
			time.Sleep(50 * time.Millisecond)
			th.Interrupt()
		}()
		go func() {
			_, err := th.Run(r)
			done <- err
		}()
		select {
		case err := <-done:
			if err == nil {
				t.Error("the interrupt was answered")
			}
		case <-time.After(time.Minute):
			t.Error("the guest runs on")
		}
	})
}
