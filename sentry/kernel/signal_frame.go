package kernel

import (
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/sentry/kernel/signal"
)

// runHandler makes t's registers enter the handler of info's signal; a frame that cannot be written raises SIGSEGV (setup_rt_frame, signal_setup_done).
func (t *Task) runHandler(info *linux.SignalInfo, act linux.SigAction) {
	sig := linux.Signal(info.Signo)
	mask := t.mask()
	if t.hasSaved {
		mask = t.savedMask
	}
	fp, err := t.thread.FPState()
	if err != nil {
		t.brokenThread(err)
		return
	}
	for !t.pushFrame(info, &act, mask, fp) {
		if !t.shortOfMemory() || !t.outOfMemory() {
			t.forceSegv(sig)
			return
		} // a victim has ended
	}
	if t.altStack.Flags&ssAutodisarm != 0 {
		t.altStack = linux.SignalStack{Flags: linux.SS_DISABLE}
	}
	blocked := t.mask() | act.Mask
	if act.Flags&linux.SA_NODEFER == 0 {
		blocked |= linux.SignalSetOf(sig)
	}
	t.SetSignalMask(blocked)
}

func (t *Task) pushFrame(info *linux.SignalInfo, act *linux.SigAction, mask linux.SignalSet, fp []byte) bool {
	if act.Flags&linux.SA_RESTORER == 0 {
		return false
	}
	sp := t.regs.Rsp
	nested, entering := t.onAltStack(sp), false
	sp -= signal.RedZone
	if act.Flags&linux.SA_ONSTACK != 0 && t.altStack.Size != 0 && !t.onAltStack(sp) {
		sp, entering = t.altStack.Addr+t.altStack.Size, true
	}
	l := signal.Place(sp, len(fp))
	if nested || entering {
		// Overflowing the alternate stack is fatal, rather than a corruption of what lies below.
		if s := &t.altStack; l.Frame <= s.Addr || l.Frame-s.Addr > s.Size {
			return false
		}
	}
	if need := len(fp) + 4; cap(t.fpBuf) < need {
		t.fpBuf = make([]byte, need)
	}
	b := t.fpBuf[:len(fp)+4]
	signal.EncodeFP(b, fp, signal.Features(fp))
	if _, err := t.CopyOut(hostarch.Addr(l.FP), b); err != nil {
		return false
	}
	f := b[:signal.FrameSize]
	info.FixSignalCodeForUser()
	signal.Encode(f, l, &t.regs, act, info, mask, &t.altStack, &t.trap)
	if _, err := t.CopyOut(hostarch.Addr(l.Frame), f); err != nil {
		return false
	}
	signal.Enter(&t.regs, l, linux.Signal(info.Signo), act)
	return true
}

// SigReturn is rt_sigreturn(2): a bad frame raises SIGSEGV.
func (t *Task) SigReturn() {
	t.restart = nil
	t.regsReplaced = true
	if !t.popFrame() {
		t.regs.Orig_rax = ^uint64(0)
		t.forceSegv(0)
	}
}

func (t *Task) popFrame() bool {
	var uc [signal.UContextSize]byte
	sp := t.regs.Rsp
	// The handler's ret has popped the return address.
	if _, err := t.CopyIn(hostarch.Addr(sp), uc[:]); err != nil {
		return false
	}
	mask, alt, fp, err := signal.Decode(uc[:], &t.regs)
	if err != nil {
		return false
	}
	t.SetSignalMask(mask)
	if !t.restoreFP(hostarch.Addr(fp)) {
		return false
	}
	t.SetAltStack(alt, t.regs.Rsp) // errors are ignored, as in restore_altstack
	return true
}

func (t *Task) restoreFP(addr hostarch.Addr) bool {
	if addr == 0 {
		return t.thread.SetFPState(nil) == nil
	}
	cur, err := t.thread.FPState()
	if err != nil {
		t.brokenThread(err)
		return false
	}
	maxLen := len(cur)
	if need := max(maxLen, 576) + 4; cap(t.fpBuf) < need {
		t.fpBuf = make([]byte, need)
	}
	b := t.fpBuf[:max(maxLen, 576)+4]
	if _, err := t.CopyIn(addr, b[:512]); err != nil {
		return false
	}
	n, features := signal.CheckFP(b[:512], maxLen)
	if n > 512 {
		if _, err := t.CopyIn(addr+512, b[512:n+4]); err != nil {
			return false
		}
		if !signal.IsMagic2(b[n:]) {
			n, features = 512, 3
		}
	}
	signal.FinishFP(b[:max(n, 576)], n, features)
	return t.thread.SetFPState(b[:max(n, 576)]) == nil
}
