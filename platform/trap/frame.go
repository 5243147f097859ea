package trap

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"moat/platform"
	"moat/platform/stub"
)

// Layout of Linux's amd64 struct ucontext and its sigcontext (arch/x86/include/uapi/asm/sigcontext.h).
const (
	ucontextSize = 304 // up to the end of uc_sigmask
	ucGregs      = 40
	ucSigmask    = 296

	gR8, gR9, gR10, gR11, gR12, gR13, gR14, gR15 = ucGregs, ucGregs + 8, ucGregs + 16, ucGregs + 24, ucGregs + 32, ucGregs + 40, ucGregs + 48, ucGregs + 56
	gRdi, gRsi, gRbp, gRbx, gRdx, gRax, gRcx     = ucGregs + 64, ucGregs + 72, ucGregs + 80, ucGregs + 88, ucGregs + 96, ucGregs + 104, ucGregs + 112
	gRsp, gRip, gEflags, gSegs, gErr, gTrapno    = ucGregs + 120, ucGregs + 128, ucGregs + 136, ucGregs + 144, ucGregs + 152, ucGregs + 160
	gCr2, gFpstate                               = ucGregs + 176, ucGregs + 184

	userCS, userSS = 0x33, 0x2b

	siginfoSize = 48 // as far as it is read

	// Page fault error code bits.
	pfWrite, pfInstr = 2, 16
	trapPageFault    = 14
)

func get(b []byte, off int) uint64    { return binary.LittleEndian.Uint64(b[off:]) }
func put(b []byte, off int, v uint64) { binary.LittleEndian.PutUint64(b[off:], v) }

// load copies the frame's registers. The bases are not in the frame.
func load(uc []byte, r *platform.Regs) {
	r.R8, r.R9, r.R10, r.R11 = get(uc, gR8), get(uc, gR9), get(uc, gR10), get(uc, gR11)
	r.R12, r.R13, r.R14, r.R15 = get(uc, gR12), get(uc, gR13), get(uc, gR14), get(uc, gR15)
	r.Rdi, r.Rsi, r.Rbp, r.Rbx = get(uc, gRdi), get(uc, gRsi), get(uc, gRbp), get(uc, gRbx)
	r.Rdx, r.Rax, r.Rcx, r.Rsp = get(uc, gRdx), get(uc, gRax), get(uc, gRcx), get(uc, gRsp)
	r.Rip, r.Eflags = get(uc, gRip), get(uc, gEflags)
	r.Cs, r.Ss = userCS, userSS
	r.Orig_rax = ^uint64(0)
}

// store writes r into the frame, with nothing blocked.
func store(uc []byte, r *platform.Regs) {
	put(uc, gR8, r.R8)
	put(uc, gR9, r.R9)
	put(uc, gR10, r.R10)
	put(uc, gR11, r.R11)
	put(uc, gR12, r.R12)
	put(uc, gR13, r.R13)
	put(uc, gR14, r.R14)
	put(uc, gR15, r.R15)
	put(uc, gRdi, r.Rdi)
	put(uc, gRsi, r.Rsi)
	put(uc, gRbp, r.Rbp)
	put(uc, gRbx, r.Rbx)
	put(uc, gRdx, r.Rdx)
	put(uc, gRax, r.Rax)
	put(uc, gRcx, r.Rcx)
	put(uc, gRsp, r.Rsp)
	put(uc, gRip, r.Rip)
	put(uc, gEflags, r.Eflags)
	put(uc, gSegs, userCS|userSS<<48)
	put(uc, ucSigmask, 0)
}

// loadCall is load for the registers of callCode.
func loadCall(c *stub.Control, r *platform.Regs) {
	h, o := &c.Hot, &c.Regs
	r.Rax, r.Rdi, r.Rsi, r.Rdx, r.R10, r.Rsp = h.RAX, h.RDI, h.RSI, h.RDX, h.R10, h.RSP
	r.Rip, r.Eflags, r.Rbx, r.Rcx, r.Rbp = o.RIP, o.EFlags, o.RBX, o.RCX, o.RBP
	r.R8, r.R9, r.R11, r.R12, r.R13, r.R14, r.R15 = o.R8, o.R9, o.R11, o.R12, o.R13, o.R14, o.R15
	r.Cs, r.Ss = userCS, userSS
	r.Orig_rax = ^uint64(0)
}

// storeCall is store for them. What has not changed is not written: it stays in the cache of the guest's CPU. The result comes last, right before the state.
func storeCall(c *stub.Control, r *platform.Regs) {
	h, o := &c.Hot, &c.Regs
	if r.Rip != o.RIP || r.Eflags != o.EFlags || r.Rbx != o.RBX || r.Rcx != o.RCX || r.Rbp != o.RBP || r.R8 != o.R8 {
		o.RIP, o.EFlags, o.RBX, o.RCX, o.RBP, o.R8 = r.Rip, r.Eflags, r.Rbx, r.Rcx, r.Rbp, r.R8
	}
	if r.R9 != o.R9 || r.R11 != o.R11 || r.R12 != o.R12 || r.R13 != o.R13 || r.R14 != o.R14 || r.R15 != o.R15 {
		o.R9, o.R11, o.R12, o.R13, o.R14, o.R15 = r.R9, r.R11, r.R12, r.R13, r.R14, r.R15
	}
	if r.Rdi != h.RDI || r.Rsi != h.RSI || r.Rdx != h.RDX || r.R10 != h.R10 || r.Rsp != h.RSP {
		h.RDI, h.RSI, h.RDX, h.R10, h.RSP = r.Rdi, r.Rsi, r.Rdx, r.R10, r.Rsp
	}
	h.RAX = r.Rax
}

// The extended state in a signal frame (Intel SDM vol. 1, 13.4; struct _fpx_sw_bytes).
const (
	fxsaveSize   = 512
	xsaveHeader  = 64
	swOff        = 464
	swXfeatures  = 472
	mxcsrOff     = 24
	mxcsrMaskOff = 28
	initialFCW   = 0x37f
	initialMXCSR = 0x1f80
	defaultMask  = 0xffbf
	maxXSave     = 16384
)

// setFP replaces the state in dst by b, or by the initial state, so that the host's XRSTOR accepts it. sw is the
// frame's own software bytes, kept. b may be dst.
func setFP(dst, b []byte, features uint64) error {
	mask := binary.LittleEndian.Uint32(dst[mxcsrMaskOff:])
	if mask == 0 {
		mask = defaultMask
	}
	var sw [fxsaveSize - swOff]byte
	copy(sw[:], dst[swOff:fxsaveSize])
	bv := uint64(0)
	switch {
	case len(b) == 0:
		clear(dst)
		binary.LittleEndian.PutUint16(dst, initialFCW)
		binary.LittleEndian.PutUint32(dst[mxcsrOff:], initialMXCSR)
	case len(b) < fxsaveSize:
		return unix.EINVAL
	default:
		clear(dst[copy(dst, b):])
		bv = 3 // the legacy area alone: x87 and SSE
		if len(b) >= fxsaveSize+xsaveHeader {
			bv = get(b, fxsaveSize) & features
		}
		mxcsr := binary.LittleEndian.Uint32(dst[mxcsrOff:])
		binary.LittleEndian.PutUint32(dst[mxcsrOff:], mxcsr&mask)
		binary.LittleEndian.PutUint32(dst[mxcsrMaskOff:], mask)
	}
	if len(dst) >= fxsaveSize+xsaveHeader {
		clear(dst[fxsaveSize : fxsaveSize+xsaveHeader])
		put(dst, fxsaveSize, bv)
	}
	copy(dst[swOff:], sw[:])
	return nil
}
