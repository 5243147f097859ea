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

// TestMaskInPlace changes the signal mask in place, with interrupts at any moment, and counts.
func TestMaskInPlace(t *testing.T) {
	// INC RBX; MOV EAX, 14; SYSCALL; ADD RBP, [RDX]; XOR [RSI], 16; JMP: the old mask is 16 every other time, but for the first
	code := []byte{0x48, 0xff, 0xc3, 0x90, 0xb8, 14, 0, 0, 0, 0x0f, 0x05, 0x48, 0x03, 0x2a, 0x48, 0x83, 0x36, 0x10, 0xeb, 0xec}
	withCode(t, code, []int{9}, func(p *Platform, th platform.Thread, r *platform.Regs) {
		w := th.Signals()
		th.SetIdentity(platform.Identity{Valid: true})
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(time.Duration(i%50) * time.Microsecond):
					w.Pending.Store(uint32(i / 8 % 2))
					th.Interrupt()
				}
			}
		}()
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
		close(stop)
		<-stopped
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
