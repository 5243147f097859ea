// Package platformtest is the test that every platform passes: small machine-code programs in a memory file.
package platformtest

import (
	"bytes"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/platform"
)

const (
	page     = hostarch.PageSize
	codeAt   = hostarch.Addr(0x400000)
	dataAt   = hostarch.Addr(0x600000)
	dataOff  = 16 * page
	fileSize = 64 * page
)

// bed is a platform with a memory file whose first page holds code.
type bed struct {
	t  testing.TB
	p  platform.Platform
	fd int
	m  []byte
}

func newBed(t testing.TB, mk func() (platform.Platform, error)) *bed {
	t.Helper()
	p, err := mk()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.MemfdCreate("platformtest", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Ftruncate(fd, fileSize); err != nil {
		t.Fatal(err)
	}
	m, err := unix.Mmap(fd, 0, fileSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close(); unix.Munmap(m); unix.Close(fd) })
	return &bed{t, p, fd, m}
}

// space returns a space with code mapped at codeAt and a data page at dataAt.
func (b *bed) space(code ...byte) platform.AddressSpace {
	b.t.Helper()
	copy(b.m, code)
	as, err := b.p.NewAddressSpace()
	if err != nil {
		b.t.Fatal(err)
	}
	as.Map(hostarch.AddrRange{Start: codeAt, End: codeAt + page}, b.fd, 0, hostarch.ReadExecute)
	as.Map(hostarch.AddrRange{Start: dataAt, End: dataAt + page}, b.fd, dataOff, hostarch.ReadWrite)
	return as
}

// onThread runs fn on a goroutine locked to its OS thread, as a task's is, with a Thread of as.
func (b *bed) onThread(as platform.AddressSpace, fn func(th platform.Thread, r *platform.Regs)) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		th, err := as.NewThread()
		if err != nil {
			b.t.Error("NewThread:", err)
			return
		}
		defer th.Release()
		fn(th, &platform.Regs{Rip: uint64(codeAt), Rsp: uint64(dataAt) + page - 64, Eflags: 0x202})
	}()
	<-done
}

func (b *bed) run(th platform.Thread, r *platform.Regs) platform.Event {
	ev, err := th.Run(r)
	if err != nil {
		b.t.Error("Run:", err)
	}
	return ev
}

// Run runs the suite.
func Run(t *testing.T, mk func() (platform.Platform, error)) {
	for _, c := range []struct {
		name string
		fn   func(*bed)
	}{
		{"Syscall", testSyscall}, {"Fault", testFault}, {"Signals", testSignals}, {"Mapping", testMapping},
		{"Spaces", testSpaces}, {"Threads", testThreads}, {"Interrupt", testInterrupt}, {"FPState", testFPState},
		{"BadRegs", testBadRegs}, {"Killed", testKilled}, {"Leaks", testLeaks}, {"Vsyscall", testVsyscall},
		{"Watch", testWatch}, {"Keep", testKeep},
	} {
		t.Run(c.name, func(t *testing.T) { c.fn(newBed(t, mk)) })
	}
}

var (
	movEAX = func(n byte) []byte { return []byte{0xb8, n, 0, 0, 0} }
	sysc   = []byte{0x0f, 0x05}
	jmpTop = func(at int) []byte { return []byte{0xeb, byte(-at - 2)} }
)

func cat(b ...[]byte) []byte { return bytes.Join(b, nil) }

func testSyscall(b *bed) {
	// mov eax, 39; syscall; jmp back
	as := b.space(cat(movEAX(39), sysc, jmpTop(7))...)
	defer as.Release()
	b.onThread(as, func(th platform.Thread, r *platform.Regs) {
		for i := range 100 {
			r.R15 = uint64(i)
			ev := b.run(th, r)
			if ev.Kind != platform.EventSyscall || r.Orig_rax != 39 || r.Rip != uint64(codeAt)+7 || r.R15 != uint64(i) || int64(r.Rax) != -int64(unix.ENOSYS) {
				b.t.Fatalf("event %+v, regs %+v", ev, r)
			}
			r.Rax = 4711
		}
	})
}

func testFault(b *bed) {
	// mov [rdi], rax; mov eax, 1; syscall
	as := b.space(cat([]byte{0x48, 0x89, 0x07}, movEAX(1), sysc)...)
	defer as.Release()
	b.onThread(as, func(th platform.Thread, r *platform.Regs) {
		r.Rdi, r.Rax = 0x700008, 0x1122334455667788
		ev := b.run(th, r)
		if ev.Kind != platform.EventFault || ev.Addr != 0x700008 || r.Rip != uint64(codeAt) || ev.Access.Execute {
			b.t.Fatalf("event %+v rip %x", ev, r.Rip)
		}
		as.Map(hostarch.AddrRange{Start: 0x700000, End: 0x700000 + page}, b.fd, dataOff+page, hostarch.Read)
		if ev = b.run(th, r); ev.Kind != platform.EventFault || ev.Addr != 0x700008 {
			b.t.Fatalf("write to a read-only page: %+v", ev)
		}
		as.Protect(hostarch.AddrRange{Start: 0x700000, End: 0x700000 + page}, hostarch.ReadWrite)
		if ev = b.run(th, r); ev.Kind != platform.EventSyscall || b.m[dataOff+page+8] != 0x88 {
			b.t.Fatalf("after Protect: %+v", ev)
		}
		r.Rip = 0x12345000
		if ev = b.run(th, r); ev.Kind != platform.EventFault || ev.Addr != 0x12345000 {
			b.t.Fatalf("execute of nothing: %+v", ev)
		}
	})
}

func testSignals(b *bed) {
	for _, c := range []struct {
		code []byte
		sig  unix.Signal
	}{
		{[]byte{0x0f, 0x0b}, unix.SIGILL},               // ud2
		{[]byte{0x31, 0xc9, 0xf7, 0xf1}, unix.SIGFPE},   // xor ecx, ecx; div ecx
		{[]byte{0xcc}, unix.SIGTRAP},                    // int3
		{[]byte{0xf4}, unix.SIGSEGV},                    // hlt
		{[]byte{0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0}, 0}, // mov rax, [0]: a fault
	} {
		as := b.space(c.code...)
		b.onThread(as, func(th platform.Thread, r *platform.Regs) {
			ev := b.run(th, r)
			if c.sig == 0 && ev.Kind != platform.EventFault || c.sig != 0 && (ev.Kind != platform.EventSignal || ev.Signal != c.sig) {
				b.t.Errorf("%x: %+v", c.code, ev)
			}
		})
		as.Release()
	}
	// A single step by the trap flag.
	as := b.space(0x90, 0x90, 0x90)
	defer as.Release()
	b.onThread(as, func(th platform.Thread, r *platform.Regs) {
		r.Eflags |= 0x100
		if ev := b.run(th, r); ev.Kind != platform.EventSignal || ev.Signal != unix.SIGTRAP || r.Rip != uint64(codeAt)+1 {
			b.t.Errorf("single step: %+v rip %x", ev, r.Rip)
		}
	})
}

func testMapping(b *bed) {
	// mov rax, [rdi]; mov eax, 1; syscall; jmp back
	as := b.space(cat([]byte{0x48, 0x8b, 0x07, 0x48, 0x89, 0xc6}, movEAX(1), sysc, jmpTop(13))...)
	defer as.Release()
	b.onThread(as, func(th platform.Thread, r *platform.Regs) {
		for i := range 3000 { // more than a batch, and not to be joined
			a := hostarch.Addr(0x10000000 + i*2*page)
			as.Map(hostarch.AddrRange{Start: a, End: a + page}, b.fd, uint64(dataOff+(i%8)*page), hostarch.Read)
		}
		for i := range 8 {
			b.m[dataOff+i*page] = byte(i + 1)
		}
		r.Rdi = 0x10000000 + 2999*2*page
		if ev := b.run(th, r); ev.Kind != platform.EventSyscall || byte(r.Rsi) != 2999%8+1 {
			b.t.Fatalf("%+v rsi %x", ev, r.Rsi)
		}
		as.Unmap(hostarch.AddrRange{Start: 0x10000000, End: 0x10000000 + 6000*page})
		r.Rip = uint64(codeAt)
		if ev := b.run(th, r); ev.Kind != platform.EventFault {
			b.t.Fatalf("after Unmap: %+v", ev)
		}
	})
}

// testSpaces: changes of one space are none of another, and a space that was another before has nothing of it.
func testSpaces(b *bed) {
	code := cat([]byte{0x48, 0x8b, 0x37}, movEAX(1), sysc)
	as := b.space(code...)
	defer as.Release()
	b.m[dataOff] = 77
	data := hostarch.AddrRange{Start: dataAt, End: dataAt + page}
	for range 20 {
		c := b.space(code...)
		as.Unmap(data)
		if err := as.Flush(); err != nil {
			b.t.Fatal(err)
		}
		b.onThread(c, func(th platform.Thread, r *platform.Regs) {
			r.Rdi = uint64(dataAt)
			if ev := b.run(th, r); ev.Kind != platform.EventSyscall || byte(r.Rsi) != 77 {
				b.t.Fatalf("the other space: %+v rsi %x", ev, r.Rsi)
			}
			r.Rip, r.Rdi = uint64(codeAt), 0x700000
			if ev := b.run(th, r); ev.Kind != platform.EventFault || ev.Addr != 0x700000 {
				b.t.Fatalf("what was never mapped here: %+v", ev)
			}
		})
		c.Map(hostarch.AddrRange{Start: 0x700000, End: 0x700000 + page}, b.fd, dataOff, hostarch.ReadWrite)
		if err := c.Flush(); err != nil {
			b.t.Fatal(err)
		}
		c.Release()
		b.onThread(as, func(th platform.Thread, r *platform.Regs) {
			r.Rdi = uint64(dataAt)
			if ev := b.run(th, r); ev.Kind != platform.EventFault {
				b.t.Fatalf("this space: %+v", ev)
			}
		})
	}
}

// testKeep: a space that is kept has its mappings, but no thread of before; one that is not reclaimed becomes another's, empty.
func testKeep(b *bed) {
	k := b.p.(platform.Keeper)
	code := cat([]byte{0x48, 0x8b, 0x37}, movEAX(1), sysc)
	b.m[dataOff], b.m[dataOff+page] = 77, 78
	data := hostarch.AddrRange{Start: dataAt, End: dataAt + page}
	see := func(as platform.AddressSpace, what string, want byte) {
		b.t.Helper()
		b.onThread(as, func(th platform.Thread, r *platform.Regs) {
			r.Rdi = uint64(dataAt)
			if ev := b.run(th, r); want == 0 && ev.Kind != platform.EventFault || want != 0 && (ev.Kind != platform.EventSyscall || byte(r.Rsi) != want) {
				b.t.Errorf("%s: %+v, %x read, want %x", what, ev, r.Rsi, want)
			}
		})
	}
	reclaim := func(ticket uint64) platform.AddressSpace {
		b.t.Helper()
		for {
			as, gone := k.Reclaim(ticket)
			if as != nil {
				return as
			}
			if gone {
				b.t.Fatal("what was kept is gone")
			}
			time.Sleep(time.Millisecond)
		}
	}
	as := b.space(code...)
	see(as, "at first", 77)
	for range 5 {
		ticket := k.Keep(as)
		if ticket == 0 {
			b.t.Fatal("a space is not kept")
		}
		as = reclaim(ticket)
		if _, gone := k.Reclaim(ticket); !gone {
			b.t.Fatal("what was kept is had twice")
		}
		see(as, "reclaimed", 77)
	}
	as.Map(data, b.fd, dataOff+page, hostarch.ReadWrite) // not flushed
	as = reclaim(k.Keep(as))
	see(as, "changed before it was kept", 78)
	as.Unmap(data)
	see(as, "changed after it was reclaimed", 0)
	as.Map(data, b.fd, dataOff, hostarch.ReadWrite)
	see(as, "mapped again", 77)
	ticket := k.Keep(as)
	k.Discard(ticket)
	if as, gone := k.Reclaim(ticket); as != nil || !gone {
		b.t.Error("what was discarded is still there")
	}
	// However many are kept, the others are empty.
	var tickets []uint64
	for range 12 {
		as := b.space(code...)
		see(as, "one of many", 77)
		tickets = append(tickets, k.Keep(as))
	}
	var spaces []platform.AddressSpace
	for range 16 {
		as, err := b.p.NewAddressSpace()
		if err != nil {
			b.t.Fatal(err)
		}
		spaces = append(spaces, as)
		as.Map(hostarch.AddrRange{Start: codeAt, End: codeAt + page}, b.fd, 0, hostarch.ReadExecute)
		see(as, "a new one", 0)
	}
	for _, ticket := range tickets {
		k.Discard(ticket)
	}
	for _, as := range spaces {
		as.Release()
	}
}

func testThreads(b *bed) {
	// lock inc dword [rdi]; mov eax, 1; syscall; jmp back
	as := b.space(cat([]byte{0xf0, 0xff, 0x07}, movEAX(1), sysc, jmpTop(10))...)
	defer as.Release()
	var wg sync.WaitGroup
	const threads, rounds = 64, 20
	for range threads {
		wg.Add(1)
		go func() {
			defer wg.Done()
			b.onThread(as, func(th platform.Thread, r *platform.Regs) {
				r.Rdi = uint64(dataAt)
				for range rounds {
					if ev := b.run(th, r); ev.Kind != platform.EventSyscall {
						b.t.Errorf("%+v", ev)
						return
					}
				}
			})
		}()
	}
	wg.Wait()
	if n := int(b.m[dataOff]) | int(b.m[dataOff+1])<<8; n != threads*rounds {
		b.t.Errorf("%d increments, want %d", n, threads*rounds)
	}
}

func testInterrupt(b *bed) {
	as := b.space(0xeb, 0xfe) // jmp to itself
	defer as.Release()
	b.onThread(as, func(th platform.Thread, r *platform.Regs) {
		th.Interrupt() // sticky
		if ev := b.run(th, r); ev.Kind != platform.EventInterrupted {
			b.t.Fatalf("%+v", ev)
		}
		for i := range 200 {
			go func() {
				time.Sleep(time.Duration(i%5) * 20 * time.Microsecond)
				th.Interrupt()
			}()
			if ev := b.run(th, r); ev.Kind != platform.EventInterrupted || r.Rip != uint64(codeAt) {
				b.t.Fatalf("%+v rip %x", ev, r.Rip)
			}
		}
	})
}

func testFPState(b *bed) {
	// movq xmm3, rax; mov eax, 1; syscall; movq rsi, xmm3; syscall
	as := b.space(cat([]byte{0x66, 0x48, 0x0f, 0x6e, 0xd8}, movEAX(1), sysc, []byte{0x66, 0x48, 0x0f, 0x7e, 0xde}, sysc)...)
	defer as.Release()
	var saved []byte
	b.onThread(as, func(th platform.Thread, r *platform.Regs) {
		r.Rax = 0xabcdef
		b.run(th, r)
		s, err := th.FPState()
		if err != nil {
			b.t.Fatal(err)
		}
		saved = bytes.Clone(s)
		if ev := b.run(th, r); ev.Kind != platform.EventSyscall || r.Rsi != 0xabcdef {
			b.t.Errorf("own state: rsi %x", r.Rsi)
		}
	})
	b.onThread(as, func(th platform.Thread, r *platform.Regs) {
		r.Rip += 12
		if b.run(th, r); r.Rsi != 0 {
			b.t.Errorf("initial state: rsi %x", r.Rsi)
		}
		if err := th.SetFPState(saved); err != nil {
			b.t.Fatal(err)
		}
		r.Rip = uint64(codeAt) + 12
		if b.run(th, r); r.Rsi != 0xabcdef {
			b.t.Errorf("state of another: rsi %x", r.Rsi)
		}
		if err := th.SetFPState(bytes.Repeat([]byte{0xff}, len(saved))); err != nil && err != unix.EINVAL {
			b.t.Errorf("garbage: %v", err)
		}
		if err := th.SetFPState(nil); err != nil {
			b.t.Error(err)
		}
	})
}

func testBadRegs(b *bed) {
	as := b.space(0x90, 0xcc)
	defer as.Release()
	b.onThread(as, func(th platform.Thread, r *platform.Regs) {
		good := *r
		for _, bad := range []func(*platform.Regs){
			func(r *platform.Regs) { r.Rip = 0x8000000000000000 },
			func(r *platform.Regs) { r.Fs_base = 0x8000000000000000 },
			func(r *platform.Regs) { r.Gs_base = ^uint64(0) },
			func(r *platform.Regs) { r.Cs, r.Ss, r.Ds, r.Es = 0x10, 0x18, 0xffff, 1 },
			func(r *platform.Regs) { r.Eflags = ^uint64(0) &^ 0x100 },
		} {
			*r = good
			bad(r)
			if _, err := th.Run(r); err != nil {
				b.t.Errorf("%+v: %v", r, err)
			}
		}
		*r = good
		if ev := b.run(th, r); ev.Kind != platform.EventSignal || ev.Signal != unix.SIGTRAP {
			b.t.Errorf("afterwards: %+v", ev)
		}
	})
}

func testKilled(b *bed) {
	as, other := b.space(0xeb, 0xfe), b.space(0xeb, 0xfe)
	defer as.Release()
	defer other.Release()
	victim := as.(interface{ PID() int }).PID()
	b.onThread(as, func(th platform.Thread, r *platform.Regs) {
		go func() {
			time.Sleep(20 * time.Millisecond)
			unix.Kill(victim, unix.SIGKILL)
		}()
		if ev, err := th.Run(r); err == nil {
			b.t.Errorf("a killed stub: %+v", ev)
		}
	})
	b.onThread(other, func(th platform.Thread, r *platform.Regs) {
		th.Interrupt()
		if ev := b.run(th, r); ev.Kind != platform.EventInterrupted {
			b.t.Errorf("%+v", ev)
		}
	})
}

// testWatch: the end of a stub whose threads are all at work in the sentry is told at once.
func testWatch(b *bed) {
	gone := make(chan platform.AddressSpace, 8)
	b.p.(platform.Watcher).Watch(func(as platform.AddressSpace) { gone <- as })
	first := children(b.t)
	as, other := b.space(cat(movEAX(1), sysc, jmpTop(7))...), b.space(cat(movEAX(1), sysc, jmpTop(7))...)
	defer other.Release()
	wait := func(want platform.AddressSpace) {
		select {
		case got := <-gone:
			if got != want {
				b.t.Errorf("told of the wrong space")
			}
		case <-time.After(20 * time.Second):
			b.t.Fatal("not told of a killed stub")
		}
	}
	b.onThread(as, func(th platform.Thread, r *platform.Regs) {
		b.run(th, r)
		th.Park()
		unix.Kill(as.(interface{ PID() int }).PID(), unix.SIGKILL)
		wait(as)
		if ev, err := th.Run(r); err == nil {
			b.t.Errorf("a killed stub: %+v", ev)
		}
	})
	as.Release()
	b.onThread(other, func(th platform.Thread, r *platform.Regs) {
		if ev := b.run(th, r); ev.Kind != platform.EventSyscall {
			b.t.Errorf("%+v", ev)
		}
	})
	// A release is not told of; that of the first stub is.
	unix.Kill(first[len(first)-1], unix.SIGKILL)
	wait(nil)
	if c, err := b.p.NewAddressSpace(); err == nil {
		b.t.Error("a space without the first stub")
		c.Release()
	}
	if n := len(gone); n != 0 {
		b.t.Errorf("told of %d more", n)
	}
}

func testLeaks(b *bed) {
	as := b.space(cat(movEAX(1), sysc)...)
	defer as.Release()
	round := func() {
		var all [3]platform.AddressSpace
		for i := range all {
			all[i] = b.space(cat(movEAX(1), sysc)...)
			b.onThread(all[i], func(th platform.Thread, r *platform.Regs) { b.run(th, r) })
		}
		for _, c := range all {
			c.Release()
		}
	}
	count := func() (procs, threads, fds int) {
		time.Sleep(100 * time.Millisecond) // what is released is made ready for use in the background
		pids := children(b.t)
		for _, pid := range pids {
			threads += threadsOf(b.t, pid)
		}
		return len(pids), threads, openFDs(b.t)
	}
	for range 20 {
		round()
	}
	procs, threads, fds := count()
	const rounds = 300
	for range rounds {
		round()
	}
	// A platform may keep stubs ready, as many as it finds use for: a number that has a bound, which a leak in one of 20 rounds would exceed.
	const kept, keptThreads = rounds / 20, 8 * rounds / 20
	if p, th, f := count(); p >= procs+kept || th >= threads+keptThreads || f != fds {
		b.t.Errorf("%d processes, %d threads and %d descriptors, before %d, %d and %d", p, th, f, procs, threads, fds)
	}
}

func testVsyscall(b *bed) {
	// mov rax, 0xffffffffff600400; call rax
	as := b.space(0x48, 0xc7, 0xc0, 0x00, 0x04, 0x60, 0xff, 0xff, 0xd0)
	defer as.Release()
	b.onThread(as, func(th platform.Thread, r *platform.Regs) {
		ev := b.run(th, r)
		if ev.Kind != platform.EventFault || ev.Addr != 0xffffffffff600400 || r.Rip != 0xffffffffff600400 || r.Rsp != uint64(dataAt)+page-72 {
			b.t.Errorf("%+v rip %x rsp %x", ev, r.Rip, r.Rsp)
		}
	})
}

// Bench measures the platform's own costs.
func Bench(b *testing.B, mk func() (platform.Platform, error)) {
	b.Run("Syscall", func(tb *testing.B) {
		b := newBed(tb, mk)
		as := b.space(cat(movEAX(39), sysc, jmpTop(7))...)
		defer as.Release()
		b.onThread(as, func(th platform.Thread, r *platform.Regs) {
			tb.ReportAllocs()
			for range tb.N {
				b.run(th, r)
			}
		})
	})
	b.Run("NewRelease", func(tb *testing.B) {
		b := newBed(tb, mk)
		for range tb.N {
			b.space(0x90).Release()
		}
	})
	b.Run("MapUnmapFlush", func(tb *testing.B) {
		b := newBed(tb, mk)
		as := b.space(0x90)
		defer as.Release()
		ar := hostarch.AddrRange{Start: 0x700000, End: 0x710000}
		for range tb.N {
			as.Map(ar, b.fd, 0, hostarch.ReadWrite)
			as.Unmap(ar)
			if err := as.Flush(); err != nil {
				tb.Fatal(err)
			}
		}
	})
}
