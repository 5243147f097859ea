#include "textflag.h"

// The code that runs inside stubs. It is copied to a page at stubBase, so it is position-independent; it uses no stack.
// The layout of the order and reply pages is in order.go.
//
// Entered with AX = 0 by the zygote: R12 = order page, R13 = reply page.
// Entered with AX = 1 by a guest thread that ends.

#define SYS_lseek 8
#define SYS_mmap 9
#define SYS_mprotect 10
#define SYS_munmap 11
#define SYS_pwrite64 18
#define SYS_pause 34
#define SYS_clone 56
#define SYS_exit 60
#define SYS_prctl 157
#define SYS_rt_sigreturn 15
#define SYS_sigaltstack 131
#define SYS_futex 202
#define SYS_exit_group 231
#define SYS_seccomp 317
#define SYS_close_range 436

// The layout of order.go.
#define STUB_BASE 0x7fff00000000
#define STUB_END 0x7fff90000000
#define AREA_MASK (-0x8000)
#define USER_END 0x7ffffffff000
#define HELPER_PROG 0x7fff00001000
#define GUEST_PROG 0x7fff00001010
#define TEMPLATE_CODE 0x7fff00000600
#define SPAWN_CODE 0x7fff00002000
#define ORDER_SIZE 32768
#define REPLY_SIZE 4096
#define WIN_BASE 0x7f600000
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
#define ORD_SPAWN 28
#define ORD_AREA 32
#define ORD_OPS 64

#define SPAWN_FLAGS 0x310b00 // threadFlags | CLONE_PARENT_SETTID

#define SIGUSR2 12
#define UC_RIP 168 // struct ucontext: uc_mcontext.gregs[REG_RIP]

// stub.Control, as far as it is used here.
#define CTL_TID 72
#define CTL_MADE 76
#define CTL_ALTSTACK 104
#define CTL_KIND 140
#define CTL_RIP 144
#define CTL_RSP 152
#define CTL_EFLAGS 160
#define CTL_RAX 168
#define CTL_RBX 176
#define CTL_RCX 184
#define CTL_RDX 192
#define CTL_RSI 200
#define CTL_RDI 208
#define CTL_RBP 216
#define CTL_R8 224
#define CTL_R9 232
#define CTL_R10 240
#define CTL_R11 248
#define CTL_R12 256
#define CTL_R13 264
#define CTL_R14 272
#define CTL_R15 280
#define CTL_STACK 4096

TEXT ·stubCode(SB), NOSPLIT|NOFRAME, $0-0
	CMPQ AX, $1
	JNE  zygote

	// A guest thread ends.
	XORL DI, DI
	MOVL $SYS_exit, AX
	SYSCALL
	HLT

zygote:
	// Leave nothing of the sentry mapped.
	XORL DI, DI
	MOVQ $WIN_BASE, SI
	MOVL $SYS_munmap, AX
	SYSCALL
	TESTQ AX, AX
	JNE  die
	MOVQ $WIN_END, DI
	MOVQ $(STUB_BASE-WIN_END), SI
	MOVL $SYS_munmap, AX
	SYSCALL
	TESTQ AX, AX
	JNE  die
	MOVQ $STUB_END, DI
	MOVQ $(USER_END-STUB_END), SI
	MOVL $SYS_munmap, AX
	SYSCALL
	TESTQ AX, AX
	JNE  die

	// seccomp(SECCOMP_SET_MODE_FILTER, 0, helper's filter)
	MOVL $1, DI
	XORL SI, SI
	MOVQ $HELPER_PROG, DX
	MOVL $SYS_seccomp, AX
	SYSCALL
	TESTQ AX, AX
	JNE  die
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
	MOVQ 8(R15), DI
	MOVQ 16(R15), SI
	MOVQ 24(R15), DX
	MOVQ 32(R15), R10
	MOVQ 40(R15), R8
	MOVQ 48(R15), R9
	SYSCALL
	CMPQ AX, $-4095
	JCC  die                   // unsigned >=: an errno
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

	// The result of the one order of a batch, a process or thread ID or an errno, becomes the control file's position.
told:
	MOVL ORD_CTL(R12), DI      // lseek(ctl, result, SEEK_SET)
	MOVL AX, SI
	XORL DX, DX
	MOVL $SYS_lseek, AX
	SYSCALL
	TESTQ AX, AX
	JLT  die
	JMP  done

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
	MOVL $SYS_mmap, AX
	SYSCALL
	CMPQ AX, R12
	JNE  die
	MOVQ R13, DI
	MOVL $REPLY_SIZE, SI
	MOVL $3, DX
	MOVQ R14, R9
	MOVL $SYS_mmap, AX
	SYSCALL
	CMPQ AX, R13
	JNE  die
	MOVQ $WIN_BASES, DI
	MOVL $BASES_SIZE, SI
	MOVL $1, DX
	ADDQ $REPLY_SIZE, R9
	MOVL $SYS_mmap, AX
	SYSCALL
	CMPQ AX, $WIN_BASES
	JNE  die
	MOVL $1, DI                // prctl(PR_SET_PDEATHSIG, SIGKILL)
	MOVL $9, SI
	MOVL $SYS_prctl, AX
	SYSCALL
	XORL R14, R14
	JMP  wait

thread:
	// clone(a0): a1 = the thread's area, or 0; a2 = 1 for the template. The host clears the area's first word, the state, when the thread
	// has ended, and wakes who waits there.
	MOVQ 8(R15), DI
	XORL SI, SI
	MOVQ 16(R15), DX
	MOVQ DX, R10
	MOVQ 24(R15), R8
	MOVL $SYS_clone, AX
	SYSCALL
	TESTQ AX, AX
	JNZ  told

	MOVQ DX, R15               // the area
	MOVQ R8, BX
	TESTQ R15, R15
	JZ   bare
	LEAQ CTL_ALTSTACK(R15), DI // sigaltstack(&control.altstack, NULL)
	XORL SI, SI
	MOVL $SYS_sigaltstack, AX
	SYSCALL
	TESTQ AX, AX
	JNE  die
bare:
	XORL DI, DI                // close_range(0, ~0, CLOSE_RANGE_UNSHARE)
	MOVL $-1, SI
	MOVL $2, DX
	MOVL $SYS_close_range, AX
	SYSCALL
	TESTQ AX, AX
	JNE  die
	MOVL $1, DI                // seccomp(SECCOMP_SET_MODE_FILTER, 0, guests' filter)
	XORL SI, SI
	MOVQ $GUEST_PROG, DX
	MOVL $SYS_seccomp, AX
	SYSCALL
	TESTQ AX, AX
	JNE  die
	TESTL BX, BX
	JZ   guest
	XORL R14, R14
	MOVQ $TEMPLATE_CODE, AX
	JMP  AX
guest:
	MOVL $1, 8(R13)            // ready to be seized
	TESTQ R15, R15
	JZ   idle
	MOVL $-1, AX               // trapped: the handler waits for the first registers
	SYSCALL
	HLT
idle:
	MOVL $SYS_pause, AX        // until it is seized
	SYSCALL
	JMP  idle

die:
	MOVL $97, DI
	MOVL $SYS_exit_group, AX
	SYSCALL
	HLT

// What the template does, a thread that is under the guests' filter but runs no guest code: it waits for order.spawn to change from R14, its
// last value, and then makes a guest thread on order.area. R12 = order page, R15 = the area of the last thread that it made, or 0.
TEXT ·templateCode(SB), NOSPLIT|NOFRAME, $0-0
	TESTQ R15, R15
	JZ   wait
	MOVL $1, CTL_MADE(R15)     // back from spawnCode
wait:
	MOVL ORD_SPAWN(R12), AX
	CMPL AX, R14
	JNE  make
	LEAQ ORD_SPAWN(R12), DI    // futex(&order.spawn, FUTEX_WAIT, R14, NULL)
	XORL SI, SI
	MOVL R14, DX
	XORL R10, R10
	XORL R8, R8
	XORL R9, R9
	MOVL $SYS_futex, AX
	SYSCALL
	JMP  wait
make:
	MOVL AX, R14
	MOVQ ORD_AREA(R12), R15
	MOVQ $SPAWN_CODE, AX
	JMP  AX

// How the template makes a guest thread. The page with this code is mapped only while no guest thread can run in the stub.
TEXT ·spawnCode(SB), NOSPLIT|NOFRAME, $0-0
	MOVL $SPAWN_FLAGS, DI      // clone(flags, 0, &control.tid, &control.state)
	XORL SI, SI
	LEAQ CTL_TID(R15), DX
	MOVQ R15, R10
	XORL R8, R8
	MOVL $SYS_clone, AX
	SYSCALL
	TESTQ AX, AX
	JZ   guest
	JGT  made
	MOVL AX, CTL_TID(R15)      // an errno
made:
	MOVQ $TEMPLATE_CODE, AX
	JMP  AX
guest:
	LEAQ CTL_ALTSTACK(R15), DI // sigaltstack(&control.altstack, NULL)
	XORL SI, SI
	MOVL $SYS_sigaltstack, AX
	SYSCALL
	MOVL $-1, AX               // trapped: the handler waits for the first registers
	SYSCALL
	HLT

// The signal handler of guest threads. DI = signal, SI = siginfo, DX = ucontext; the frame is on the alternate stack of the thread's area, whose first
// page is stub.Control. The frame holds all registers but the segment bases; the sentry reads and writes them there. Everything is
// blocked, nothing is pushed.
//
// An interrupt may come while a thread is in callCode, with its registers half saved or half loaded. It is passed on only where the sentry has told
// the thread to run; before that, the thread is about to tell the sentry of its call, and the sentry looks at what is pending when it answers.
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
	CMPL 0(R12), $2            // StateRun: on its way out
	JNE  back
post:
	MOVL $0, CTL_KIND(R12)
	MOVQ DI, 32(R12)
	MOVQ SI, 40(R12)
	MOVQ DX, 48(R12)
	RDFSBASEQ AX
	MOVQ AX, 56(R12)
	RDGSBASEQ AX
	MOVQ AX, 64(R12)
	MOVL $1, AX
	XCHGL AX, 0(R12)           // StateEvent; a full barrier
	CMPL 8(R12), $0            // SentrySleeps
	JE   look
	MOVQ R12, DI               // futex(&state, FUTEX_WAKE, 1)
	MOVL $1, SI
	MOVL $1, DX
	MOVL $SYS_futex, AX
	SYSCALL
look:
	MOVL 12(R12), BX           // GuestSpin
again:
	MOVL 0(R12), AX
	CMPL AX, $1
	JNE  go
	PAUSE
	SUBL $1, BX
	JG   again
	MOVL $1, AX
	XCHGL AX, 4(R12)           // GuestSleeps
	MOVQ R12, DI               // futex(&state, FUTEX_WAIT, StateEvent, NULL)
	XORL SI, SI
	MOVL $1, DX
	XORL R10, R10
	MOVL $SYS_futex, AX
	SYSCALL
	MOVL $0, 4(R12)
	JMP  look
go:
	CMPL AX, $3                // StateExit
	JE   leave
	MOVQ 56(R12), AX
	WRFSBASEQ AX
	MOVQ 64(R12), AX
	WRGSBASEQ AX
back:
	LEAQ 8(SP), SP             // rt_sigreturn(2) finds the frame above the return address
	MOVL $SYS_rt_sigreturn, AX
	SYSCALL
	HLT
leave:
	XORL DI, DI
	MOVL $SYS_exit, AX
	SYSCALL
	HLT

// Where a slot of the window jumps to with a call that the guest makes (package trap). AX = number of the call, CX = where the call returns to;
// the GS base is the thread's area, the state StateEnter. The flags and all other registers but R11 are the guest's, and nothing may be
// pushed on its stack. The extended state stays in the registers.
TEXT ·callCode(SB), NOSPLIT|NOFRAME, $0-0
	MOVQ SP, CTL_RSP(GS)
	RDGSBASEQ R11
	LEAQ CTL_STACK(R11), SP
	PUSHFQ
	POPQ R11
	MOVQ R11, CTL_EFLAGS(GS)
	MOVQ CX, CTL_RIP(GS)
	MOVQ AX, CTL_RAX(GS)
	MOVQ BX, CTL_RBX(GS)
	MOVQ DX, CTL_RDX(GS)
	MOVQ SI, CTL_RSI(GS)
	MOVQ DI, CTL_RDI(GS)
	MOVQ BP, CTL_RBP(GS)
	MOVQ R8, CTL_R8(GS)
	MOVQ R9, CTL_R9(GS)
	MOVQ R10, CTL_R10(GS)
	MOVQ R12, CTL_R12(GS)
	MOVQ R13, CTL_R13(GS)
	MOVQ R14, CTL_R14(GS)
	MOVQ R15, CTL_R15(GS)
	RDFSBASEQ R13
	MOVQ R13, 56(GS)
	RDGSBASEQ R12
	MOVL $1, CTL_KIND(R12)
	MOVL $1, AX
	XCHGL AX, 0(R12)           // StateEvent; a full barrier
	CMPL 8(R12), $0            // SentrySleeps
	JE   look
	MOVQ R12, DI               // futex(&state, FUTEX_WAKE, 1)
	MOVL $1, SI
	MOVL $1, DX
	MOVL $SYS_futex, AX
	SYSCALL
look:
	MOVL 12(R12), BX           // GuestSpin
again:
	MOVL 0(R12), AX
	CMPL AX, $1
	JNE  told
	PAUSE
	SUBL $1, BX
	JG   again
sleep:
	MOVL AX, DX
	MOVL $1, AX
	XCHGL AX, 4(R12)           // GuestSleeps
	MOVQ R12, DI               // futex(&state, FUTEX_WAIT, StateEvent or StatePark, NULL)
	XORL SI, SI
	XORL R10, R10
	MOVL $SYS_futex, AX
	SYSCALL
	MOVL $0, 4(R12)
	JMP  look
told:
	CMPL AX, $6                // StatePark: not soon
	JE   sleep
	CMPL AX, $3                // StateExit
	JE   leave
	CMPL AX, $4                // StateFrame
	JE   frame
	MOVQ 56(R12), AX
	CMPQ AX, R13
	JE   samefs
	WRFSBASEQ AX
samefs:
	MOVQ CTL_EFLAGS(R12), AX
	LEAQ CTL_STACK(R12), SP
	PUSHQ AX
	POPFQ
	MOVQ CTL_RAX(R12), AX
	MOVQ CTL_RBX(R12), BX
	MOVQ CTL_RCX(R12), CX
	MOVQ CTL_RDX(R12), DX
	MOVQ CTL_RSI(R12), SI
	MOVQ CTL_RDI(R12), DI
	MOVQ CTL_RBP(R12), BP
	MOVQ CTL_R8(R12), R8
	MOVQ CTL_R9(R12), R9
	MOVQ CTL_R10(R12), R10
	MOVQ CTL_R11(R12), R11
	MOVQ CTL_R13(R12), R13
	MOVQ CTL_R14(R12), R14
	MOVQ CTL_R15(R12), R15
	MOVQ CTL_RSP(R12), SP
	MOVQ CTL_R12(R12), R12
	BYTE $0x65; BYTE $0xff; BYTE $0x24; BYTE $0x25; LONG $CTL_RIP // JMP *CTL_RIP(GS)
frame:
	MOVL $-1, AX               // trapped: the handler goes on with what the sentry wants, in a frame
	SYSCALL
	HLT
leave:
	XORL DI, DI
	MOVL $SYS_exit, AX
	SYSCALL
	HLT

// What ends callCode.
TEXT ·codeEnd(SB), NOSPLIT|NOFRAME, $0-0
	HLT

// func codeEndAddr() *byte
TEXT ·codeEndAddr(SB), NOSPLIT, $0-8
	MOVQ $·codeEnd(SB), AX
	MOVQ AX, ret+0(FP)
	RET

// func templateCodeAddr() *byte
TEXT ·templateCodeAddr(SB), NOSPLIT, $0-8
	MOVQ $·templateCode(SB), AX
	MOVQ AX, ret+0(FP)
	RET

// func spawnCodeAddr() *byte
TEXT ·spawnCodeAddr(SB), NOSPLIT, $0-8
	MOVQ $·spawnCode(SB), AX
	MOVQ AX, ret+0(FP)
	RET

// func callCodeAddr() *byte
TEXT ·callCodeAddr(SB), NOSPLIT, $0-8
	MOVQ $·callCode(SB), AX
	MOVQ AX, ret+0(FP)
	RET

// func handlerCodeAddr() *byte
TEXT ·handlerCodeAddr(SB), NOSPLIT, $0-8
	MOVQ $·handlerCode(SB), AX
	MOVQ AX, ret+0(FP)
	RET

// func stubCodeAddr() *byte
TEXT ·stubCodeAddr(SB), NOSPLIT, $0-8
	MOVQ $·stubCode(SB), AX
	MOVQ AX, ret+0(FP)
	RET

// func enterStub(code, order, reply uintptr)
TEXT ·enterStub(SB), NOSPLIT, $0-24
	MOVQ code+0(FP), R10
	MOVQ order+8(FP), R12
	MOVQ reply+16(FP), R13
	XORL AX, AX
	JMP  R10

// func spinUntil(word *atomic.Uint32, v uint32, n int) bool
TEXT ·spinUntil(SB), NOSPLIT, $0-25
	MOVQ word+0(FP), DI
	MOVL v+8(FP), SI
	MOVQ n+16(FP), CX
spin:
	MOVL 0(DI), AX
	CMPL AX, SI
	JEQ  found
	PAUSE
	SUBQ $1, CX
	JG   spin
	MOVB $0, ret+24(FP)
	RET
found:
	MOVB $1, ret+24(FP)
	RET

// func thisCPU() int
// The CPU's number is in the limit of a segment that Linux keeps for that (GDT_ENTRY_CPUNODE), as its vDSO uses it.
TEXT ·thisCPU(SB), NOSPLIT, $0-8
	MOVL $0x7b, AX
	BYTE $0x0f; BYTE $0x03; BYTE $0xc0 // LSL EAX, AX
	ANDL $0xfff, AX
	MOVQ AX, ret+0(FP)
	RET
