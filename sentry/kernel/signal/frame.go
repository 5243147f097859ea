package signal

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"moat/platform"
)

// The x86-64 signal frame (arch/x86/kernel/signal_64.c, arch/x86/include/uapi/asm/sigcontext.h), from low to high addresses: return address,
// ucontext, siginfo, padding, XSAVE area with its second magic word, red zone of the interrupted function.
const (
	ucSize    = 304
	infoSize  = 128
	FrameSize = 8 + ucSize + infoSize
	redZone   = 128

	ucStack   = 16 // within ucontext
	ucContext = 40
	ucMask    = 296

	fpMagic1   = 0x46505853
	fpMagic2   = 0x46505845
	swBytes    = 464 // of the XSAVE area: struct _fpx_sw_bytes
	legacySize = 512
	headerSize = 64

	// ucFlags: an XSAVE area follows, ss is saved and is to be restored strictly.
	ucFlags = 1 | 2 | 4

	userCS, userSS = 0x33, 0x2b
	// fixEFlags are the flags that sigreturn restores; trapFlags those that a handler starts without (DF, RF, TF).
	fixEFlags  = 0x40000 | 0x10000 | 0x800 | 0x400 | 0x100 | 0x80 | 0x40 | 0x10 | 0x4 | 0x1
	entryFlags = 0x400 | 0x10000 | 0x100
)

// Trap is what the thread's last exception left: struct sigcontext's err, trapno and cr2.
type Trap struct{ Number, Error, CR2 uint64 }

// Layout is where a frame goes.
type Layout struct {
	Frame uint64 // address of the frame, which is the handler's stack pointer
	FP    uint64 // address of the XSAVE area
}

// Place finds the frame's place below sp (get_sigframe). fpLen is the XSAVE area's length.
func Place(sp uint64, fpLen int) Layout {
	fp := (sp - uint64(fpLen) - 4) &^ 63
	return Layout{Frame: (fp-FrameSize)&^15 - 8, FP: fp}
}

// RedZone is what the interrupted function may use below its stack pointer.
const RedZone = redZone

// Encode writes the frame into b (FrameSize bytes).
func Encode(b []byte, l Layout, regs *platform.Regs, act *linux.SigAction, info *linux.SignalInfo, mask linux.SignalSet, alt *linux.SignalStack, trap *Trap) {
	le := binary.LittleEndian
	clear(b)
	le.PutUint64(b, act.Restorer)
	uc := b[8:]
	le.PutUint64(uc, ucFlags)
	le.PutUint64(uc[ucStack:], alt.Addr)
	le.PutUint32(uc[ucStack+8:], alt.Flags)
	le.PutUint64(uc[ucStack+16:], alt.Size)
	sc := uc[ucContext:]
	for i, r := range [...]uint64{regs.R8, regs.R9, regs.R10, regs.R11, regs.R12, regs.R13, regs.R14, regs.R15, regs.Rdi, regs.Rsi, regs.Rbp,
		regs.Rbx, regs.Rdx, regs.Rax, regs.Rcx, regs.Rsp, regs.Rip, regs.Eflags} {
		le.PutUint64(sc[i*8:], r)
	}
	le.PutUint16(sc[144:], uint16(regs.Cs))
	le.PutUint16(sc[150:], uint16(regs.Ss))
	le.PutUint64(sc[152:], trap.Error)
	le.PutUint64(sc[160:], trap.Number)
	le.PutUint64(sc[168:], uint64(mask))
	le.PutUint64(sc[176:], trap.CR2)
	le.PutUint64(sc[184:], l.FP)
	le.PutUint64(uc[ucMask:], uint64(mask))
	PutInfo(b[8+ucSize:], info)
}

// PutInfo encodes siginfo_t (128 bytes).
func PutInfo(b []byte, info *linux.SignalInfo) {
	le := binary.LittleEndian
	le.PutUint32(b, uint32(info.Signo))
	le.PutUint32(b[4:], uint32(info.Errno))
	le.PutUint32(b[8:], uint32(info.Code))
	le.PutUint32(b[12:], 0)
	copy(b[16:infoSize], info.Fields[:])
}

// EncodeFP writes the XSAVE area fp with its software bytes and second magic into b, which has len(fp)+4 bytes.
func EncodeFP(b, fp []byte, features uint64) {
	le := binary.LittleEndian
	n := copy(b, fp)
	sw := b[swBytes:legacySize]
	clear(sw)
	if n < legacySize+headerSize {
		return
	}
	le.PutUint32(sw, fpMagic1)
	le.PutUint32(sw[4:], uint32(n+4))
	le.PutUint64(sw[8:], features)
	le.PutUint32(sw[16:], uint32(n))
	le.PutUint32(b[n:], fpMagic2)
}

// Features is the mask of state components that fp may hold: where the host's signal frame or its ptrace (NT_X86_XSTATE) noted it, or at least those
// in use.
func Features(fp []byte) uint64 {
	if len(fp) < legacySize+headerSize {
		return 3
	}
	le := binary.LittleEndian
	sw := fp[swBytes:]
	switch m := le.Uint64(sw); {
	case uint32(m) == fpMagic1:
		return le.Uint64(sw[8:])
	case m&3 == 3:
		return m
	}
	return le.Uint64(fp[legacySize:]) | 7
}

// Enter sets regs for the handler.
func Enter(regs *platform.Regs, l Layout, sig linux.Signal, act *linux.SigAction) {
	regs.Rdi, regs.Rsi, regs.Rdx, regs.Rax = uint64(sig), l.Frame+8+ucSize, l.Frame+8, 0
	regs.Rip, regs.Rsp = act.Handler, l.Frame
	regs.Eflags &^= entryFlags
	regs.Cs, regs.Ss = userCS, userSS
	regs.Orig_rax = ^uint64(0)
}

// Decode reads back a ucontext (ucSize bytes at the stack pointer of rt_sigreturn).
func Decode(uc []byte, regs *platform.Regs) (mask linux.SignalSet, alt linux.SignalStack, fp uint64, err error) {
	le := binary.LittleEndian
	sc := uc[ucContext:]
	for i, r := range [...]*uint64{&regs.R8, &regs.R9, &regs.R10, &regs.R11, &regs.R12, &regs.R13, &regs.R14, &regs.R15, &regs.Rdi, &regs.Rsi, &regs.Rbp,
		&regs.Rbx, &regs.Rdx, &regs.Rax, &regs.Rcx, &regs.Rsp, &regs.Rip} {
		*r = le.Uint64(sc[i*8:])
	}
	regs.Eflags = regs.Eflags&^fixEFlags | le.Uint64(sc[136:])&fixEFlags
	// Other code segments (32-bit code) do not exist for guests; Linux's iret would fault on a bad one.
	if le.Uint16(sc[144:])|3 != userCS {
		return 0, alt, 0, unix.EFAULT
	}
	regs.Cs, regs.Ss, regs.Orig_rax = userCS, userSS, ^uint64(0)
	alt.Addr, alt.Flags, alt.Size = le.Uint64(uc[ucStack:]), le.Uint32(uc[ucStack+8:]), le.Uint64(uc[ucStack+16:])
	return linux.SignalSet(le.Uint64(uc[ucMask:])), alt, le.Uint64(sc[184:]), nil
}

// UContextSize is the size of what Decode reads.
const UContextSize = ucSize

// CheckFP looks at the first 512 bytes of a frame's FP state and says how long the XSAVE area is; 512 if it is plain FXSAVE state. The caller verifies
// the second magic, at that offset, with IsMagic2 (check_xstate_in_sigframe).
func CheckFP(legacy []byte, maxLen int) (n int, features uint64) {
	le := binary.LittleEndian
	sw := legacy[swBytes:]
	n = int(le.Uint32(sw[16:]))
	if le.Uint32(sw) != fpMagic1 || n < legacySize+headerSize || n > maxLen || uint32(n) > le.Uint32(sw[4:]) {
		return legacySize, 3
	}
	return n, le.Uint64(sw[8:])
}

// IsMagic2 reports whether b begins with FP_XSTATE_MAGIC2.
func IsMagic2(b []byte) bool { return binary.LittleEndian.Uint32(b) == fpMagic2 }

// FinishFP makes b, read from a frame, the state to load: components that the frame does not claim are initial. b has at least the legacy area and header.
func FinishFP(b []byte, n int, features uint64) {
	le := binary.LittleEndian
	if n == legacySize {
		clear(b[legacySize:])
		le.PutUint64(b[legacySize:], 3)
	} else {
		le.PutUint64(b[legacySize:], le.Uint64(b[legacySize:])&features)
	}
	clear(b[swBytes:legacySize])
}
