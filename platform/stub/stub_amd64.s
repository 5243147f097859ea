#include "textflag.h"

// The code that runs inside stubs. It is copied to pages at stubBase, so it is position-independent; it uses no stack.
// The layout of the order and reply pages is in order.go.

#define SYS_lseek 8
#define SYS_mmap 9
#define SYS_munmap 11
#define SYS_pwrite64 18
#define SYS_pause 34
#define SYS_nanosleep 35
#define SYS_clone 56
#define SYS_exit 60
#define SYS_prctl 157
#define SYS_rt_sigreturn 15
#define SYS_rt_sigprocmask 14
#define SYS_sigaltstack 131
#define SYS_futex 202
#define SYS_clock_nanosleep 230
#define SYS_exit_group 231
#define SYS_tgkill 234
#define SYS_close_range 436

// The layout of order.go.
#define STUB_BASE 0x7fff00000000
#define CODE_SIZE 0x4000
#define ORDER_OFF 0x10000
#define REPLY_END 0x7fff00019000
#define AREA_MASK (-0x8000)
#define USER_END 0x7ffffffff000
#define CALL_OFF 3072
#define WAIT_OFF 3520
#define WAIT_CODE 0x7fff00000dc0
#define ORDER_SIZE 32768
#define REPLY_SIZE 4096
#define WIN_BASE 0x7f600000
#define WIN_BELLS 0x7f70f000
#define RUNG 0x7fff00018100 // replyPage.rung
#define WIN_BASES 0x7f710000
#define WIN_END 0x7f800000
#define BASES_SIZE 32768

// orderPage, read-only here.
#define ORD_SEQ 0
#define ORD_N 4
#define ORD_CTL 8
#define ORD_WAITS 12
#define ORD_ACKOFF 16
#define ORD_ACK 24
#define ORD_OPS 64

// prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, ...)
#define PR_DISPATCH 59
#define PR_DISPATCH_ON 1

#define SIGUSR2 12
#define UC_RIP 168 // struct ucontext: uc_mcontext.gregs[REG_RIP]

// stub.Control, as far as it is used here.
#define CTL_ALTSTACK 104
#define CTL_KIND 140
#define CTL_FS 96
#define CTL_GS 88
#define CTL_RAX 16
#define CTL_RDI 24
#define CTL_RSI 32
#define CTL_RDX 40
#define CTL_R10 48
#define CTL_RIP 144
#define CTL_RSP 56
#define CTL_EFLAGS 152
#define CTL_RBX 160
#define CTL_RCX 168
#define CTL_RBP 176
#define CTL_R8 184
#define CTL_R9 192
#define CTL_R11 200
#define CTL_R12 208
#define CTL_R13 216
#define CTL_R14 224
#define CTL_R15 232
#define CTL_NAP 248
#define CTL_WAKE 256
#define CTL_RETURN 320
#define CTL_MASK 328
#define CTL_PENDING 336
#define CTL_LENT 344
#define CTL_ACTIONS 352
#define CTL_NAPFOR 2400
#define CTL_NAPPED 2416
#define CTL_NAPSINCE 2424
#define CTL_NAPMAX 2432
#define CTL_SP 4032
#define CTL_FLAGS 4088
#define CTL_STACK 4096
#define CTL_XSAVE 4096
#define TABLE 0x7fff00003000

// The start of the entry code. AX = 3 (StateExit): a guest thread ends. AX = 0: a new one, where there are no handlers, waits for its tracer.
TEXT ·entryCode(SB), NOSPLIT|NOFRAME, $0-0
	CMPL AX, $3
	JEQ  leave
idle:
	MOVL $SYS_pause, AX
	SYSCALL
	JMP  idle
leave:
	XORL DI, DI
	MOVL $SYS_exit, AX
	SYSCALL
	HLT

#define MUST(nr) \
	MOVL $nr, AX; \
	SYSCALL; \
	TESTQ AX, AX; \
	JNE  die

#define UNMAP(from, to) \
	MOVQ $(from), DI; \
	MOVQ $((to)-(from)), SI; \
	MUST(SYS_munmap)

#define MAP \
	MOVL $SYS_mmap, AX; \
	SYSCALL; \
	CMPQ AX, DI; \
	JNE  die

// The helper's code, which begins in the zygote, with the filter in force: R12 = order page, R13 = reply page.
TEXT ·helperCode(SB), NOSPLIT|NOFRAME, $0-0
	// Leave nothing of the sentry mapped. The host may have put its stack anywhere above.
	UNMAP(0, WIN_BASE)
	UNMAP(WIN_END, STUB_BASE)
	UNMAP(STUB_BASE+CODE_SIZE, STUB_BASE+ORDER_OFF)
	UNMAP(REPLY_END, USER_END)

	XORL R14, R14              // number of the last batch done

	// The sentry waits on the helper's own CPU: to look for orders for a while before sleeping would only delay it.
wait:
	MOVL ORD_SEQ(R12), AX
	CMPL AX, R14
	JNE  batch
	MOVQ R12, DI               // futex(&order.seq, FUTEX_WAIT, R14, NULL)
	XORL SI, SI
	MOVL R14, DX
	XORL R10, R10
	XORL R8, R8
	XORL R9, R9
	MOVL $SYS_futex, AX
	SYSCALL
	JMP  wait

batch:
	MOVL AX, R14
	MOVL ORD_N(R12), BX        // number of orders
	LEAQ ORD_OPS(R12), R15     // the first order: {nr, a0..a5, unused}

next:
	TESTL BX, BX
	JZ   done
	MOVQ 0(R15), AX
	CMPQ AX, $-1
	JEQ  fork
	CMPQ AX, $-2
	JEQ  thread
	CMPQ AX, $-3
	JEQ  end
	MOVQ 8(R15), DI
	MOVQ 16(R15), SI
	MOVQ 24(R15), DX
	MOVQ 32(R15), R10
	MOVQ 40(R15), R8
	MOVQ 48(R15), R9
	SYSCALL
	CMPQ AX, $-4095
	JCC  die                   // unsigned >=: an errno
advance:
	ADDQ $64, R15
	DECL BX
	JMP  next

	// Nothing that guest threads can write tells of the end: the number of the batch is written to order.ack through the control
	// file, of which they have no descriptor.
done:
	MOVL ORD_CTL(R12), DI      // pwrite64(ctl, &order.seq, 4, ackOff)
	MOVQ R12, SI
	MOVL $4, DX
	MOVQ ORD_ACKOFF(R12), R10
	MOVL $SYS_pwrite64, AX
	SYSCALL
	CMPQ AX, $4
	JNE  die
	MFENCE
	CMPL ORD_WAITS(R12), $0
	JEQ  wait
	LEAQ ORD_ACK(R12), DI      // futex(&order.ack, FUTEX_WAKE, 1)
	MOVL $1, SI
	MOVL $1, DX
	MOVL $SYS_futex, AX
	SYSCALL
	JMP  wait

	// a0 = process, a1 = thread, a2 = a word that may change when the thread ends, a3 and a4 = how long to wait for that. The word may be forged, the host is asked.
end:
	MOVL $20000, BP
ended:
	MOVQ 8(R15), DI            // tgkill(a0, a1, 0)
	MOVQ 16(R15), SI
	XORL DX, DX
	MOVL $SYS_tgkill, AX
	SYSCALL
	CMPQ AX, $-3               // ESRCH
	JEQ  advance
	DECL BP
	JEQ  die
	MOVQ 24(R15), DI           // futex(a2, FUTEX_WAIT, what it is, &{a3, a4})
	XORL SI, SI
	MOVL 0(DI), DX
	LEAQ 32(R15), R10
	MOVL $SYS_futex, AX
	SYSCALL
	JMP  ended

	// The result of an order to make something, a process or thread ID or an errno, becomes the control file's position. A refusal ends the batch.
told:
	MOVL AX, R9
	MOVL ORD_CTL(R12), DI      // lseek(ctl, result, SEEK_SET)
	MOVL AX, SI
	XORL DX, DX
	MOVL $SYS_lseek, AX
	SYSCALL
	TESTQ AX, AX
	JLT  die
	TESTL R9, R9
	JLT  done
	JMP  advance

fork:
	// clone(a0): a1 = descriptor, a2 and a3 = offsets of the child's order and reply pages. They travel in the
	// registers of arguments that the flags leave unused: the order page may change once the parent goes on.
	MOVQ 8(R15), DI
	XORL SI, SI
	MOVQ 24(R15), DX
	MOVQ 32(R15), R10
	MOVQ 16(R15), R8
	MOVL $SYS_clone, AX
	SYSCALL
	TESTQ AX, AX
	JNZ  told

	MOVQ DX, BX
	MOVQ R10, R14
	MOVQ R12, DI
	MOVL $ORDER_SIZE, SI
	MOVL $1, DX                // PROT_READ
	MOVL $0x11, R10            // MAP_SHARED|MAP_FIXED
	MOVQ BX, R9
	MAP
	MOVQ R13, DI
	MOVL $REPLY_SIZE, SI
	MOVL $3, DX
	MOVQ R14, R9
	MAP
	MOVQ $WIN_BASES, DI
	MOVL $BASES_SIZE, SI
	MOVL $1, DX
	ADDQ $REPLY_SIZE, R9
	MAP
	MOVL $1, DI                // prctl(PR_SET_PDEATHSIG, SIGKILL)
	MOVL $9, SI
	MOVL $SYS_prctl, AX
	SYSCALL
	XORL R14, R14
	JMP  wait

thread:
	// clone(a0): a1 = the thread's area, or 0; a2 = where its ID goes; a3 = 1 if that need not be told. The host clears the area's first word, the state, when the
	// thread has ended, and wakes who waits there.
	MOVQ 8(R15), DI
	XORL SI, SI
	MOVQ 24(R15), DX
	MOVQ 16(R15), R10
	XORL R8, R8
	MOVL $SYS_clone, AX
	SYSCALL
	TESTQ AX, AX
	JEQ  new
	CMPQ 32(R15), $0
	JEQ  told
	TESTQ AX, AX
	JLT  die
	JMP  advance
new:
	MOVQ R10, R15              // the area
	TESTQ R15, R15
	JZ   bare
	LEAQ CTL_ALTSTACK(R15), DI // sigaltstack(&control.altstack, NULL)
	XORL SI, SI
	MUST(SYS_sigaltstack)
bare:
	XORL DI, DI                // close_range(0, ~0, CLOSE_RANGE_UNSHARE)
	MOVL $-1, SI
	MOVL $2, DX
	MUST(SYS_close_range)
	// From here on the thread is a guest's: the host lets it make no call but from the pages of the entry code and of the answers.
	MOVL $PR_DISPATCH, DI
	MOVL $PR_DISPATCH_ON, SI
	MOVQ $STUB_BASE, DX
	MOVL $8192, R10
	XORL R8, R8
	MUST(SYS_prctl)
	TESTQ R15, R15
	JZ   traced
	MOVL $-1, AX               // trapped: the handler waits for the first registers
	SYSCALL
	HLT
traced:
	MOVL $1, 8(R13)            // ready to be seized
	XORL AX, AX
	MOVQ $STUB_BASE, CX
	JMP  CX

die:
	MOVL $97, DI
	MOVL $SYS_exit_group, AX
	SYSCALL
	HLT

// HANDOVER tells the sentry of an event and waits for its answer. R12 = the area. It goes on at told, with AX = the new state, which is not StateEvent;
// sleep, with AX = StatePark, sleeps on. It changes the registers of a host call, BX, R14 and R15.
//
// Who waits in the sentry: a goroutine that sleeps for this very thread (SentrySleeps), or the board (package trap). While somebody polls the board
// the thread looks for its answer for a while; else, or then, it rings the bell of its CPU (Linux keeps the CPU's number in the limit of segment 0x7b), if the bell's
// count is odd: its watchman is asleep. The process notes the count for which a ring woke the watchman, so that only the first of its threads rings. A ring that wakes
// nobody came between the watchman's last look and its sleep, or another process was faster: it is made again after a nap.
//
// It sleeps on a word of the page of bells, which the sentry changes and which every stub has: a thread that is told to sleep may so be told to wake another first,
// on its own CPU, that of another process too (CTL_WAKE).
//
// The XCHG comes first: where it has been executed and where not tells the handler what the thread was doing.
#define BEFORE_HANDOVER \
	XORL R15, R15; \
	MOVL $WIN_BELLS, R14; \
	MOVL $1, AX

#define HANDOVER \
	XCHGL AX, 0(R12); \
	CMPL 8(R12), $0; \
	JEQ  look; \
	MOVL $1, R15; \
	MOVQ R12, DI; \
	MOVL $1, SI; \
	MOVL $1, DX; \
	MOVL $SYS_futex, AX; \
	SYSCALL; \
look: \
	MOVL 12(R12), BX; \
	CMPL 0(R14), $0; \
	JEQ  ring; \
again: \
	MOVL 0(R12), AX; \
	CMPL AX, $1; \
	JNE  told; \
	PAUSE; \
	SUBL $1, BX; \
	JG   again; \
ring: \
	TESTL R15, R15; \
	JNE  asleep; \
	MOVL $1, R15; \
	MOVL $0x7b, AX; \
	BYTE $0x0f; BYTE $0x03; BYTE $0xc0; \
	ANDL $31, AX; \
	MOVQ $RUNG, R8; \
	LEAQ 0(R8)(AX*4), R8; \
	SHLL $6, AX; \
	LEAQ 64(R14)(AX*1), DI; \
	MOVL 0(DI), R9; \
	TESTL $1, R9; \
	JEQ  asleep; \
	CMPL R9, 0(R8); \
	JEQ  asleep; \
	MOVL $1, SI; \
	MOVL $1, DX; \
	MOVL $SYS_futex, AX; \
	SYSCALL; \
	TESTL AX, AX; \
	JEQ  nap; \
	MOVL R9, 0(R8); \
	JMP  asleep; \
nap: \
	XORL R15, R15; \
	LEAQ 16(R14), R10; \
	JMP  doze; \
asleep: \
	XORL R10, R10; \
doze: \
	MOVL 0(R12), AX; \
	CMPL AX, $1; \
	JNE  told; \
sleep: \
	CMPL AX, $6; \
	JNE  nobody; \
	MOVQ CTL_WAKE(R12), DI; \
	TESTQ DI, DI; \
	JEQ  nobody; \
	MOVQ $0, CTL_WAKE(R12); \
	MOVL $1, SI; \
	MOVL $0x7fffffff, DX; \
	MOVL $SYS_futex, AX; \
	SYSCALL; \
	MOVL $6, AX; \
nobody: \
	MOVL $1, DX; \
	XCHGL DX, 4(R12); \
	MOVQ CTL_NAP(R12), DI; \
	MOVL 0(DI), DX; \
	CMPL AX, 0(R12); \
	JNE  awake; \
	XORL SI, SI; \
	MOVL $SYS_futex, AX; \
	SYSCALL; \
awake: \
	MOVL $0, 4(R12); \
	MOVL 0(R12), AX; \
	CMPL AX, $1; \
	JEQ  ring; \
told: \
	XORL R10, R10; \
	CMPL AX, $6; \
	JEQ  sleep

// The signal handler of guest threads. DI = signal, SI = siginfo, DX = ucontext; the frame is on the alternate stack of the thread's area, whose first
// page is stub.Control. The frame holds all registers but the segment bases; the sentry reads and writes them there. Everything is
// blocked, nothing is pushed.
//
// An interrupt may come while a thread is in callCode or waitCode, with its registers half saved or half loaded. It is passed on only where the sentry has told
// the thread to run: in waitCode, behind its first instruction. Before that, the thread is about to tell the sentry of its call, and the sentry looks at what is
// pending when it answers.
TEXT ·handlerCode(SB), NOSPLIT|NOFRAME, $0-0
	MOVQ SP, R12
	ANDQ $AREA_MASK, R12
	CMPL DI, $SIGUSR2
	JNE  post
	MOVQ UC_RIP(DX), AX
	MOVQ $STUB_BASE, BX
	SUBQ BX, AX
	CMPQ AX, $4096
	JCC  post
	SUBQ $CALL_OFF, AX
	CMPQ AX, $(WAIT_OFF-CALL_OFF)
	JLS  back                  // in callCode
	CMPL 0(R12), $2            // StateRun: on its way out
	JNE  back
post:
	MOVL $0, CTL_KIND(R12)
	MOVQ DI, 64(R12)
	MOVQ SI, 72(R12)
	MOVQ DX, 80(R12)
	RDFSBASEQ AX
	MOVQ AX, CTL_FS(R12)
	RDGSBASEQ AX
	MOVQ AX, CTL_GS(R12)
	BEFORE_HANDOVER
	HANDOVER
	CMPL AX, $3                // StateExit
	JE   leave
	MOVQ CTL_FS(R12), AX
	WRFSBASEQ AX
	MOVQ CTL_GS(R12), AX
	WRGSBASEQ AX
back:
	LEAQ 8(SP), SP             // rt_sigreturn(2) finds the frame above the return address
	MOVL $SYS_rt_sigreturn, AX
	SYSCALL
	HLT
leave:
	MOVQ $STUB_BASE, CX
	JMP  CX

// Where a slot of the window jumps to with a call that the guest makes (package trap). AX = number of the call, CX = where the call returns to;
// the GS base is the thread's area. The flags and all other registers but R11 are the guest's, and nothing may be
// pushed on its stack. The extended state stays in the registers; for the calls that make a thread, which inherits it, or send the caller a signal, whose frame has it, a copy
// is stored.
//
// What changes with each call is in the cache line of the state, which the sentry looks at all the time: so it is written last, in one go. A register that has not changed since
// the thread's last call is not stored again, so that its cache line stays with both sides. What the sentry need not see is in a line of its own, the last of the page.
#define SAVE(reg, off, base, next) \
	CMPQ reg, off(base); \
	JEQ  next; \
	MOVQ reg, off(base); \
next:

TEXT ·callCode(SB), NOSPLIT|NOFRAME, $0-0
	RDGSBASEQ R11
	MOVQ SP, CTL_SP(R11)
	LEAQ CTL_STACK(R11), SP
	PUSHFQ
	SAVE(CX, CTL_RIP, R11, s3)
	SAVE(CX, CTL_RCX, R11, s4)
	SAVE(BX, CTL_RBX, R11, s5)
	SAVE(BP, CTL_RBP, R11, s6)
	SAVE(R8, CTL_R8, R11, s7)
	SAVE(R9, CTL_R9, R11, s8)
	SAVE(R12, CTL_R12, R11, s9)
	SAVE(R13, CTL_R13, R11, s10)
	SAVE(R14, CTL_R14, R11, s11)
	SAVE(R15, CTL_R15, R11, s12)
	MOVQ R11, R12
	MOVQ CTL_FLAGS(R12), R11
	SAVE(R11, CTL_EFLAGS, R12, s1)
	SAVE(R11, CTL_R11, R12, s2) // as the SYSCALL instruction does
	CMPL CTL_KIND(R12), $1
	JEQ  s13
	MOVL $1, CTL_KIND(R12)
s13:
	RDFSBASEQ R13
	SAVE(R13, CTL_FS, R12, s14)
	MOVQ CTL_SP(R12), R11
	MOVQ AX, BX
	LEAL -56(AX), CX           // clone, fork, vfork to kill
	CMPL CX, $6
	JLS  extended
	CMPL AX, $234              // tgkill
	JEQ  extended
	CMPL AX, $435              // clone3
	JNE  kept
extended:
	MOVQ DX, CX
	MOVL $-1, AX
	MOVL AX, DX
	XSAVE64 CTL_XSAVE(R12)
	MOVQ CX, DX
kept:
	BEFORE_HANDOVER
	MOVQ $WAIT_CODE, CX
	MOVQ BX, CTL_RAX(R12)
	MOVQ DI, CTL_RDI(R12)
	MOVQ SI, CTL_RSI(R12)
	MOVQ DX, CTL_RDX(R12)
	MOVQ R10, CTL_R10(R12)
	MOVQ R11, CTL_RSP(R12)
	JMP  CX

// callCode goes on here. Of the flags, those that arithmetic leaves are restored one by one unless the sentry has changed others: POPFQ takes as long as all else.
TEXT ·waitCode(SB), NOSPLIT|NOFRAME, $0-0
	HANDOVER
	CMPL AX, $3                // StateExit
	JE   leave
	CMPL AX, $4                // StateFrame
	JE   frame
	MOVQ CTL_FS(R12), AX
	CMPQ AX, R13
	JE   samefs
	WRFSBASEQ AX
samefs:
	MOVQ CTL_RBX(R12), BX
	MOVQ CTL_RCX(R12), CX
	MOVQ CTL_RDX(R12), DX
	MOVQ CTL_RSI(R12), SI
	MOVQ CTL_RDI(R12), DI
	MOVQ CTL_R8(R12), R8
	MOVQ CTL_R9(R12), R9
	MOVQ CTL_R10(R12), R10
	MOVQ CTL_R13(R12), R13
	MOVQ CTL_R14(R12), R14
	MOVQ CTL_R15(R12), R15
	MOVQ CTL_EFLAGS(R12), AX
	MOVQ CTL_FLAGS(R12), R11
	XORQ AX, R11
	TESTQ $(~0x8d5), R11
	JNE  flags
	MOVL AX, R11
	SHRL $11, R11
	ANDL $1, R11               // overflow
	ADDB $127, R11
	MOVB AL, AH
	SAHF
	JMP  rest
flags:
	LEAQ CTL_STACK(R12), SP
	PUSHQ AX
	POPFQ
rest:
	MOVQ CTL_RBP(R12), BP
	MOVQ CTL_RAX(R12), AX
	MOVQ CTL_R11(R12), R11
	MOVQ CTL_RSP(R12), SP
	MOVQ CTL_R12(R12), R12
	BYTE $0x65; BYTE $0xff; BYTE $0x24; BYTE $0x25; LONG $CTL_RIP // JMP *CTL_RIP(GS)
frame:
	MOVL $-1, AX               // trapped: the handler goes on with what the sentry wants, in a frame
	SYSCALL
	HLT
leave:
	MOVQ $STUB_BASE, CX
	JMP  CX

// What ends waitCode.
TEXT ·codeEnd(SB), NOSPLIT|NOFRAME, $0-0
	HLT

// Where the pieces of code are, in the order of what order_unsafe.go calls them.
DATA codes<>+0(SB)/8, $·entryCode(SB)
DATA codes<>+8(SB)/8, $·helperCode(SB)
DATA codes<>+16(SB)/8, $·handlerCode(SB)
DATA codes<>+24(SB)/8, $·callCode(SB)
DATA codes<>+32(SB)/8, $·waitCode(SB)
DATA codes<>+40(SB)/8, $·codeEnd(SB)
DATA codes<>+48(SB)/8, $·answerCode(SB)
DATA codes<>+56(SB)/8, $·signalCode(SB)
DATA codes<>+64(SB)/8, $·answerEnd(SB)
GLOBL codes<>(SB), RODATA, $72

// func codes() *[numCodes]*byte
TEXT ·codes(SB), NOSPLIT, $0-8
	MOVQ $codes<>(SB), AX
	MOVQ AX, ret+0(FP)
	RET

// func enterStub(code, order, reply uintptr)
TEXT ·enterStub(SB), NOSPLIT, $0-24
	MOVQ code+0(FP), R10
	MOVQ order+8(FP), R12
	MOVQ reply+16(FP), R13
	JMP  R10

// func spinUntil(word *atomic.Uint32, v uint32, n int, mark *atomic.Int64) bool
TEXT ·spinUntil(SB), NOSPLIT, $0-33
	MOVQ word+0(FP), DI
	MOVL v+8(FP), SI
	MOVQ n+16(FP), CX
	MOVQ mark+24(FP), R9
spin:
	RDTSC
	MOVL 0(DI), BX
	CMPL BX, SI
	JEQ  found
	PAUSE
	SUBQ $1, CX
	JG   spin
	MOVB $0, ret+32(FP)
	RET
found:
	TESTQ R9, R9
	JEQ  done
	SHLQ $32, DX
	ORQ  DX, AX
	MOVQ AX, 0(R9)
done:
	MOVB $1, ret+32(FP)
	RET

// func CPU() int
// The CPU's number is in the limit of a segment that Linux keeps for that (GDT_ENTRY_CPUNODE), as its vDSO uses it.
TEXT ·CPU(SB), NOSPLIT, $0-8
	MOVL $0x7b, AX
	BYTE $0x0f; BYTE $0x03; BYTE $0xc0 // LSL EAX, AX
	ANDL $0xfff, AX
	MOVQ AX, ret+0(FP)
	RET

// Calls that are answered in place (answer.go). A slot of the window jumps here with AX = the number of the call, CX = where it returns to, the GS base the
// thread's area. Nothing is changed but CX, R11 and AX, not even the flags, and AX not before the answer is there: the sentry makes a
// call of a thread that is stopped on the way.
TEXT ·answerCode(SB), NOSPLIT|NOFRAME, $0-0
	MOVQ CX, CTL_RETURN(GS)
	MOVL AX, R11
	BSWAPL R11
	MOVWLZX R11, CX            // bits 31 to 16
	JCXZQ low
	JMP  enter
low:
	MOVBLZX AH, CX
	JCXZQ known
	LEAQ -1(CX), CX
	JCXZQ known
	JMP  enter
known:
	MOVWLZX AX, R11
	MOVQ $TABLE, CX
	JMP  0(CX)(R11*8)
enter:
	MOVQ CTL_RETURN(GS), CX
	BYTE $0xff; BYTE $0x24; BYTE $0x25; LONG $WIN_BASE // JMP [callCode]

// AX = SYS_rt_sigprocmask: DI = how, SI = set, DX = old set; or SYS_rt_sigaction: DI = signal, SI = action, DX = old action; R10 = size. What the sentry must know
// of it: after RDGSBASE it finds the registers saved before in Control, after POPQ and the next also the flags. A set has been changed between the first and the second XCHGQ with
// the mask. An action is changed last, by four stores, that of the handler with a full barrier: where a thread is stopped between them the sentry makes them anew.
//
// What others must be told of, or might see half of, is not done here: a change while a signal is pending, which may be due or have to be dropped; flags that
// say what becomes of children; nor what is read and then overwritten with the old value, as it may have to be read again.
TEXT ·signalCode(SB), NOSPLIT|NOFRAME, $0-0
	MOVQ SP, CTL_RSP(GS)
	MOVQ BX, CTL_RBX(GS)
	MOVQ BP, CTL_RBP(GS)
	MOVQ R8, CTL_R8(GS)
	MOVQ R9, CTL_R9(GS)
	MOVQ R12, CTL_R12(GS)
	RDGSBASEQ R11
	LEAQ CTL_STACK(R11), SP
	PUSHFQ
	POPQ CX
	MOVQ CX, CTL_EFLAGS(R11)
	CMPL AX, $SYS_nanosleep
	JEQ  nanosleep
	CMPL AX, $SYS_clock_nanosleep
	JEQ  clock
	CMPQ R10, $8
	JNE  out
	CMPQ SI, DX
	JEQ  out
	CMPL AX, $SYS_rt_sigprocmask
	JNE  action
	CMPL CTL_PENDING(R11), $0
	JNE  out
	MOVQ CTL_MASK(R11), R9
	TESTQ SI, SI
	JEQ  query
	MOVQ 0(SI), R8             // may fault
	CMPL DI, $1
	JHI  set
	JEQ  unblock
	ORQ  R9, R8
	JMP  check
unblock:
	NOTQ R8
	ANDQ R9, R8
	JMP  check
set:
	CMPL DI, $2
	JNE  out
check:
	ANDQ $-0x40101, R8         // SIGKILL and SIGSTOP
	TESTQ DX, DX
	JEQ  store
	MOVQ R9, 0(DX)             // may fault
store:
	XCHGQ R8, CTL_MASK(R11)    // a full barrier
	CMPL CTL_PENDING(R11), $0
	JEQ  ok
	XCHGQ R9, CTL_MASK(R11)
	JMP  out
query:
	MOVQ R9, 0(DX)             // may fault
	JMP  ok
action:
	CMPL CTL_LENT(R11), $0
	JEQ  out
	LEAL -1(DI), CX
	CMPL CX, $63
	JHI  out
	SHLL $5, CX
	LEAQ CTL_ACTIONS(R11)(CX*1), CX
	TESTQ SI, SI
	JEQ  old
	CMPL DI, $9                // SIGKILL
	JEQ  out
	CMPL DI, $19               // SIGSTOP
	JEQ  out
	CMPL CTL_PENDING(R11), $0
	JNE  out
	MOVQ 0(SI), R8             // may fault: handler, flags, restorer, mask
	MOVQ 8(SI), R9
	MOVQ 16(SI), BX
	MOVQ 24(SI), BP
	MOVQ $~0xdc000804, R12     // SA_NOCLDSTOP, SA_NOCLDWAIT and what is not known
	TESTQ R12, R9
	JNE  out
	TESTL $3, 8(CX)
	JNE  out
	ANDQ $-0x40101, BP
	TESTQ DX, DX
	JEQ  new
old:
	MOVQ 0(CX), R12
	MOVQ R12, 0(DX)            // may fault
	MOVQ 8(CX), R12
	MOVQ R12, 8(DX)
	MOVQ 16(CX), R12
	MOVQ R12, 16(DX)
	MOVQ 24(CX), R12
	MOVQ R12, 24(DX)
	TESTQ SI, SI
	JEQ  ok
new:
	MOVQ R9, 8(CX)
	MOVQ BX, 16(CX)
	MOVQ BP, 24(CX)
	XCHGQ R8, 0(CX)
ok:
	XORL AX, AX
out:
	MOVQ CTL_EFLAGS(R11), CX
	PUSHQ CX
	POPFQ
	MOVQ CTL_RBX(R11), BX
	MOVQ CTL_RBP(R11), BP
	MOVQ CTL_R8(R11), R8
	MOVQ CTL_R9(R11), R9
	MOVQ CTL_R12(R11), R12
	MOVQ CTL_RSP(R11), SP
	MOVQ CTL_RETURN(R11), R11
	MOVL AX, CX
	JCXZQ answered
	MOVQ R11, CX
	BYTE $0xff; BYTE $0x24; BYTE $0x25; LONG $WIN_BASE // JMP [callCode]
answered:
	JMP  R11

	// A sleep, AX = SYS_nanosleep: DI = how long; or SYS_clock_nanosleep: DI = clock, SI = flags, DX = how long. A short one is the host's, in futex(2), on a word that nobody
	// wakes. The arguments and the number are kept in registers that the host leaves alone.
clock:
	CMPL DI, $1                // CLOCK_REALTIME, CLOCK_MONOTONIC
	JHI  out
	TESTL SI, SI
	JNE  out
	MOVQ DX, R8
	JMP  sleep
nanosleep:
	MOVQ DI, R8
sleep:
	CMPL CTL_PENDING(R11), $0
	JNE  out
	CMPQ 0(R8), $0             // may fault: seconds, nanoseconds
	JNE  out
	MOVQ 8(R8), R9
	CMPQ R9, CTL_NAPMAX(R11)
	JHI  out
	MOVQ R9, (CTL_NAPFOR+8)(R11)
	MOVQ DI, R8
	MOVQ SI, BP
	MOVQ DX, BX
	MOVQ R10, R12
	MOVL AX, R9
	RDTSC
	SHLQ $32, DX
	ORQ  DX, AX
	MOVQ AX, CTL_NAPSINCE(R11)
	LEAQ CTL_NAPFOR(R11), DI   // futex(&seconds, FUTEX_WAIT_PRIVATE, 0, &{0, nanoseconds})
	MOVL $128, SI
	XORL DX, DX
	MOVQ DI, R10
	MOVL $SYS_futex, AX
	SYSCALL
	RDTSC
	SHLQ $32, DX
	ORQ  DX, AX
	RDGSBASEQ R11
	SUBQ CTL_NAPSINCE(R11), AX
	ADDQ AX, CTL_NAPPED(R11)
	MOVQ R8, DI
	MOVQ BP, SI
	MOVQ BX, DX
	MOVQ R12, R10
	JMP  ok

// What ends signalCode.
TEXT ·answerEnd(SB), NOSPLIT|NOFRAME, $0-0
	HLT
