package stub

import (
	"bytes"
	"cmp"
	"encoding/binary"

	"golang.org/x/sys/unix"

	"moat/platform"
)

// Calls answered in place. A slot whose call may be one jumps to answerCode, which finds the code for its number in the table. That code changes nothing but
// RAX, RCX and R11. Wherever a thread is stopped in it, by an interrupt or a fault, the sentry can tell from the address whether the call has been made (Answer).

// The page at answerAddr: answerCode, signalCode, then pieces of code made here.
const (
	signalOff = 512
	pieceOff  = 1536
	// AnswerAddr is where a slot jumps to.
	AnswerAddr = answerAddr
	// numCalls is how many numbers the table has.
	numCalls = pageSize / 8
)

// InPlace reports whether answerCode may answer call nr.
func InPlace(nr int64) bool {
	return nr == unix.SYS_RT_SIGPROCMASK || nr == unix.SYS_RT_SIGACTION || nr == unix.SYS_NANOSLEEP || nr == unix.SYS_CLOCK_NANOSLEEP || nr == unix.SYS_SCHED_YIELD || nr == unix.SYS_GETCPU || identityOf(nr) >= 0
}

// identityOf is the place in Control.Identity of what a call returns, or -1.
func identityOf(nr int64) int {
	for i, n := range [...]int64{unix.SYS_GETPID, unix.SYS_GETTID, unix.SYS_GETPPID, unix.SYS_GETUID, unix.SYS_GETEUID, unix.SYS_GETGID, unix.SYS_GETEGID} {
		if nr == n {
			return i
		}
	}
	return -1
}

// answers knows the page's code.
var answers struct {
	// enterOff is answerCode's way to callCode.
	enterOff uint64
	// Of signalCode, as offsets in the page: from saved on registers are in Control, from flags on the flags are too. The mask has been changed from masked to undone, an action
	// is being changed from acts and has been from acted on; from over on, all ways leave, with 0 in RAX if the call has been made. A sleep has its arguments in other registers
	// from moved until they are back, and is over at slept, unless the host says that it was interrupted.
	saved, flags, masked, undone, acts, acted, over, moved, slept, back uint64
	// pieces are the code that pieceOf made.
	pieces []piece
}

type piece struct {
	load, end uint64 // offsets: behind where the call has been made, and where it ends
	zero      bool   // it returns 0, which need not be in RAX yet
}

// find is the offset of the one place where code has pat; the code is the binary's own.
func find(code, pat []byte) uint64 {
	i := bytes.Index(code, pat)
	if i < 0 || i != bytes.LastIndex(code, pat) {
		panic("stub: the code for answers in place is not what is expected")
	}
	return uint64(i)
}

// answerPages are the pages at answerAddr and tableAddr.
func answerPages() []byte {
	b := make([]byte, 2*pageSize)
	code, signal := answerText()
	copy(b, code)
	copy(b[signalOff:], signal)
	a := &answers
	a.enterOff = find(code, []byte{0x65, 0x48, 0x8b, 0x0c, 0x25, offReturn & 0xff, offReturn >> 8, 0, 0, 0xff, 0x24, 0x25}) // MOV RCX, GS:[Return]; JMP [callCode]
	a.saved = signalOff + find(signal, []byte{0xf3, 0x49, 0x0f, 0xae, 0xcb, 0x49, 0x8d})                                    // RDGSBASE R11; LEA RSP, ...
	a.flags = signalOff + find(signal, []byte{0x9c, 0x59, 0x49, 0x89, 0x8b}) + 2 + 7                                        // PUSHFQ; POP RCX; MOV [R11+disp32], RCX
	a.masked = signalOff + find(signal, []byte{0x4d, 0x87, 0x83}) + 7                                                       // XCHG [R11+disp32], R8
	a.undone = signalOff + find(signal, []byte{0x4d, 0x87, 0x8b}) + 7                                                       // XCHG [R11+disp32], R9
	a.acts = signalOff + find(signal, []byte{0x4c, 0x89, 0x49, 8})                                                          // MOV [RCX+8], R9
	a.acted = signalOff + find(signal, []byte{0x4c, 0x87, 0x01}) + 3                                                        // XCHG [RCX], R8
	a.over = a.acted + 2                                                                                                    // XOR EAX, EAX
	a.moved = signalOff + find(signal, []byte{0x41, 0x89, 0xc1, 0x0f, 0x31}) + 3                                            // MOV R9D, EAX; RDTSC
	a.slept = signalOff + find(signal, []byte{0x0f, 0x05, 0x0f, 0x31}) + 2                                                  // SYSCALL; RDTSC
	a.back = signalOff + find(signal, []byte{0x4d, 0x89, 0xe2}) + 3                                                         // MOV R10, R12
	a.pieces = nil
	table := b[pageSize:]
	for nr := range numCalls {
		binary.LittleEndian.PutUint64(table[8*nr:], answerAddr+a.enterOff)
	}
	for _, nr := range []int{unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP} {
		binary.LittleEndian.PutUint64(table[8*nr:], answerAddr+signalOff)
	}
	off := pieceOff
	for nr := range int64(numCalls) {
		p, load := pieceOf(nr)
		if p == nil {
			continue
		}
		copy(b[off:], p)
		binary.LittleEndian.PutUint64(table[8*nr:], answerAddr+uint64(off))
		a.pieces = append(a.pieces, piece{uint64(off + load), uint64(off + len(p)), identityOf(nr) < 0})
		off += len(p)
	}
	return b
}

// pieceOf is the code that answers call nr and how much of it comes before the call has been made; nil if there is none.
func pieceOf(nr int64) (code []byte, load int) {
	le := binary.LittleEndian
	if i := identityOf(nr); i >= 0 {
		code = le.AppendUint32([]byte{0x65, 0x8b, 0x04, 0x25}, uint32(OffIdentity+4*i)) // MOV EAX, GS:[Identity[i]]
	} else if nr == unix.SYS_SCHED_YIELD {
		// With a CPU for each guest thread that runs there is nobody to yield to, else the host is asked: MOV ECX, [Crowded]; JRCXZ over; SYSCALL; over: MOV EAX, 0.
		code = append(le.AppendUint32([]byte{0x8b, 0x0c, 0x25}, windowBells+offCrowded), 0xe3, 2, 0x0f, 0x05)
		load = len(code)
		code = append(code, 0xb8, 0, 0, 0, 0)
	} else if nr == unix.SYS_GETCPU {
		// A fault leaves it to the sentry: MOV RCX, RDI; JRCXZ node; MOV ECX, GS:[CPU]; MOV [RDI], ECX; node: MOV RCX, RSI; JRCXZ over; MOV DWORD [RSI], 0; over: MOV EAX, 0.
		code = le.AppendUint32([]byte{0x48, 0x89, 0xf9, 0xe3, 10, 0x65, 0x8b, 0x0c, 0x25}, offCPU)
		code = append(code, 0x89, 0x0f, 0x48, 0x89, 0xf1, 0xe3, 6, 0xc7, 0x06, 0, 0, 0, 0)
		load = len(code)
		code = append(code, 0xb8, 0, 0, 0, 0)
	} else {
		return nil, 0
	}
	load = cmp.Or(load, len(code))
	code = le.AppendUint32(append(code, 0x65, 0x48, 0x8b, 0x0c, 0x25), offReturn)
	return append(code, 0xff, 0xe1), load // MOV RCX, GS:[Return]; JMP RCX
}

// Answer puts regs, those of a thread that was stopped in the page of answers, right. It goes on behind the call. made says that the call has been made; else it is for the
// sentry to make, with its number in RAX. ok is false if regs are not in that page.
func (a *Area) Answer(regs *platform.Regs) (made, ok bool) {
	if regs.Rip&^(pageSize-1) != answerAddr {
		return false, false
	}
	c, k, off := a.Control(), &answers, regs.Rip-answerAddr
	if signalOff <= off && off < pieceOff {
		made = k.masked <= off && off < k.undone || k.acts <= off && off < k.over || k.over <= off && off < k.moved && regs.Rax == 0 ||
			k.slept < off || k.slept == off && int64(regs.Rax) != -int64(unix.EINTR)
		if k.moved <= off && off < k.back {
			regs.Rdi, regs.Rsi, regs.Rdx, regs.R10, regs.Rax = regs.R8, regs.Rbp, regs.Rbx, regs.R12, regs.R9
		}
		if i := uint32(regs.Rdi) - 1; k.acts <= off && off < k.acted && i < uint32(len(c.Signals.Actions.Of)) {
			c.Signals.Actions.Of[i].Set([4]uint64{regs.R8, regs.R9, regs.Rbx, regs.Rbp})
		}
		if off >= k.saved {
			regs.Rbx, regs.Rbp, regs.Rsp, regs.R8, regs.R9, regs.R12 = c.Regs.RBX, c.Regs.RBP, c.Hot.RSP, c.Regs.R8, c.Regs.R9, c.Regs.R12
		}
		if off >= k.flags {
			regs.Eflags = c.Regs.EFlags
		}
		if made {
			regs.Rax = 0
		}
	}
	for _, p := range k.pieces {
		if p.load <= off && off < p.end {
			if made = true; p.zero {
				regs.Rax = 0
			}
		}
	}
	// Only answerCode's first instruction has the return address in RCX alone.
	if off == 0 {
		c.Return = regs.Rcx
	}
	regs.Rip = c.Return
	return made, true
}
