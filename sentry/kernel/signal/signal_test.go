package signal

import (
	"bytes"
	"encoding/binary"
	"testing"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"moat/platform"
)

type counter struct{ n int64 }

func (c *counter) AddPending(n int64) int64 { c.n += n; return c.n }

func add(p *Pending, c Counter, sig linux.Signal, code int32, val uint64) bool {
	info := linux.SignalInfo{Signo: int32(sig), Code: code}
	info.SetSigval(val)
	return p.Add(&info, c, 3)
}

func TestPending(t *testing.T) {
	var p Pending
	var c counter
	add(&p, &c, linux.SIGUSR1, linux.SI_USER, 0)
	add(&p, &c, linux.SIGUSR1, linux.SI_USER, 0) // a standard signal is pending once
	add(&p, &c, 40, linux.SI_QUEUE, 1)
	add(&p, &c, 40, linux.SI_QUEUE, 2)
	if add(&p, &c, 40, linux.SI_QUEUE, 3) {
		t.Error("a fourth signal passed the limit of three")
	}
	add(&p, &c, linux.SIGSEGV, linux.SI_KERNEL, 0)
	if c.n != 4 {
		t.Errorf("%d counted, want 4 (a kernel's standard signal passes the limit)", c.n)
	}
	var info linux.SignalInfo
	want := []struct {
		sig linux.Signal
		val uint64
	}{{linux.SIGSEGV, 0}, {linux.SIGUSR1, 0}, {40, 1}, {40, 2}, {0, 0}}
	for _, w := range want {
		sig := p.Next(0)
		if sig != w.sig {
			t.Fatalf("next is %d, want %d", sig, w.sig)
		}
		if sig != 0 {
			p.Dequeue(sig, &info)
			if info.Sigval() != w.val {
				t.Errorf("signal %d with value %d, want %d", sig, info.Sigval(), w.val)
			}
		}
	}
	if c.n != 0 || p.Set() != 0 {
		t.Errorf("left: %d counted, set %x", c.n, p.Set())
	}
}

func TestPreallocated(t *testing.T) {
	var p Pending
	e := NewPreallocated()
	e.Info.Signo = 35
	discarded := 0
	e.OnDequeue = func(i *linux.SignalInfo) {
		if i == nil {
			discarded++
		} else {
			i.SetOverrun(7)
		}
	}
	p.AddPreallocated(e)
	var info linux.SignalInfo
	p.Dequeue(35, &info)
	if e.Queued() || info.Overrun() != 7 || p.Set() != 0 {
		t.Error("dequeue of a preallocated entry")
	}
	p.AddPreallocated(e)
	p.Discard(linux.SignalSetOf(35))
	if e.Queued() || p.head != nil || p.tail != nil || discarded != 1 {
		t.Error("discard of a preallocated entry")
	}
	// Two timers with one standard signal are both told.
	e.Info.Signo = 10
	e2 := NewPreallocated()
	e2.Info.Signo = 10
	p.AddPreallocated(e)
	p.AddPreallocated(e2)
	p.Dequeue(10, &info)
	if e.Queued() || !e2.Queued() || p.Set() == 0 {
		t.Error("one of two")
	}
	p.Dequeue(10, &info)
	if e2.Queued() || p.Set() != 0 {
		t.Error("the other")
	}
	p.AddPreallocated(e)
	if !p.Remove(e) || p.Remove(e) || p.Set() != 0 {
		t.Error("remove of a preallocated entry")
	}
}

// TestFrame builds a frame and reads it back.
func TestFrame(t *testing.T) {
	regs := platform.Regs{Rax: 1, Rbx: 2, Rcx: 3, Rdx: 4, Rsi: 5, Rdi: 6, Rbp: 7, Rsp: 0x7fff12345678, R8: 8, R9: 9, R10: 10, R11: 11, R12: 12,
		R13: 13, R14: 14, R15: 15, Rip: 0x400000, Eflags: 0x246, Cs: 0x33, Ss: 0x2b, Orig_rax: ^uint64(0)}
	fp := bytes.Repeat([]byte{0xaa}, 832)
	l := Place(regs.Rsp-RedZone, len(fp))
	if l.FP%64 != 0 || (l.Frame+8)%16 != 0 || l.FP+uint64(len(fp))+4 > regs.Rsp-RedZone || l.Frame+FrameSize > l.FP {
		t.Fatalf("layout %+v", l)
	}
	alt := linux.SignalStack{Addr: 0x1000, Size: 0x2000, Flags: 0}
	act := linux.SigAction{Handler: 0x401000, Restorer: 0x402000}
	b := make([]byte, FrameSize)
	Encode(b, l, &regs, &act, &linux.SignalInfo{Signo: 11, Code: 1}, 0xf0f0, &alt, &Trap{14, 6, 0xdead})
	var got platform.Regs
	got.Eflags = 0x202
	mask, galt, fpAddr, err := Decode(b[8:8+UContextSize], &got)
	if err != nil || got != regs || mask != 0xf0f0 || galt != alt || fpAddr != l.FP {
		t.Errorf("decoded %+v mask %x alt %+v fp %x: %v", got, mask, galt, fpAddr, err)
	}
	x := make([]byte, len(fp)+4)
	EncodeFP(x, fp, 7)
	if n, f := CheckFP(x[:512], len(fp)); n != len(fp) || f != 7 || !IsMagic2(x[n:]) {
		t.Errorf("FP state of %d bytes, features %x", n, f)
	}
	Enter(&regs, l, 11, &act)
	if regs.Rip != act.Handler || regs.Rdi != 11 || binary.LittleEndian.Uint64(b) != act.Restorer {
		t.Error("handler's registers")
	}
}

// FuzzFrame decodes hostile frames.
func FuzzFrame(f *testing.F) {
	f.Add(make([]byte, UContextSize), make([]byte, 836))
	f.Fuzz(func(t *testing.T, uc, fp []byte) {
		if len(uc) < UContextSize || len(fp) < 836 {
			return
		}
		var regs platform.Regs
		if _, _, _, err := Decode(uc, &regs); err == nil && (regs.Cs != userCS || regs.Ss != userSS || regs.Eflags&^fixEFlags != 0) {
			t.Fatalf("%+v", regs)
		}
		n, features := CheckFP(fp[:512], 832)
		if n < 512 || n > 832 {
			t.Fatal(n)
		}
		FinishFP(fp[:max(n, 576)], n, features)
	})
}
