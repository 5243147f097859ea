#include "textflag.h"

// The code that runs inside stubs. It is copied to a page at stubBase, so it is position-independent; it uses no stack.
// The layout of the order and reply pages is in order.go.
//
// Entered with AX = 0 by the zygote: R12 = order page, R13 = reply page.
// Entered with AX = 1 by a guest thread that ends.

#define SYS_mmap 9
#define SYS_mprotect 10
#define SYS_munmap 11
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
#define AREA_BASE 0x7fff10000000
#define AREA_MASK (-0x8000)
#define USER_END 0x7ffffffff000
#define HELPER_PROG 0x7fff00001000
#define GUEST_PROG 0x7fff00001010
#define ORDER_SIZE 32768
#define REPLY_SIZE 4096

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
	MOVQ $STUB_BASE, SI
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

wait:
	MOVL $3000, BX
spin:
	MOVL 0(R12), AX
	CMPL AX, R14
	JNE  batch
	PAUSE
	DECL BX
	JNZ  spin
	// futex(&order.seq, FUTEX_WAIT, R14, NULL)
	MOVQ R12, DI
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
	MOVL 4(R12), BX            // number of orders
	LEAQ 64(R12), R15          // the first order: {nr, a0..a5, unused}
	MOVQ $0, 16(R13)

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
advance:
	ADDQ $64, R15
	DECL BX
	JMP  next

done:
	MOVL R14, 0(R13)
	// futex(&reply.seq, FUTEX_WAKE, 1)
	MOVQ R13, DI
	MOVL $1, SI
	MOVL $1, DX
	MOVL $SYS_futex, AX
	SYSCALL
	JMP  wait

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
	JZ   child
	MOVQ AX, 16(R13)
	CMPQ AX, $-4095
	JCS  advance
	JMP  done                  // out of memory or processes: told, not fatal

child:
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
	MOVQ $AREA_BASE, DI        // the parent's threads' areas
	MOVQ $(STUB_END-AREA_BASE), SI
	MOVL $SYS_munmap, AX
	SYSCALL
	TESTQ AX, AX
	JNE  die
	MOVL $1, DI                // prctl(PR_SET_PDEATHSIG, SIGKILL)
	MOVL $9, SI
	MOVL $SYS_prctl, AX
	SYSCALL
	XORL R14, R14
	MOVL $1, 8(R13)            // up
	JMP  wait

thread:
	// clone(a0): a1 = the thread's area, or 0
	MOVQ 8(R15), DI
	XORL SI, SI
	MOVQ 16(R15), DX
	XORL R10, R10
	XORL R8, R8
	MOVL $SYS_clone, AX
	SYSCALL
	TESTQ AX, AX
	JZ   guest
	MOVQ AX, 16(R13)
	CMPQ AX, $-4095
	JCS  advance
	JMP  done

guest:
	MOVQ DX, R12               // the area
	TESTQ R12, R12
	JZ   bare
	LEAQ 104(R12), DI          // sigaltstack(&control.altstack, NULL)
	XORL SI, SI
	MOVL $SYS_sigaltstack, AX
	SYSCALL
	TESTQ AX, AX
	JNE  die
bare:
	XORL DI, DI                // close_range(0, ~0, 0)
	MOVL $-1, SI
	XORL DX, DX
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
	MOVL $1, 8(R13)            // ready to be seized
	TESTQ R12, R12
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

// The signal handler of guest threads. DI = signal, SI = siginfo, DX = ucontext; the frame is on the alternate stack of the thread's area, whose first
// page is stub.Control. The frame holds all registers but the segment bases; the sentry reads and writes them there. Everything is
// blocked, nothing is pushed.
TEXT ·handlerCode(SB), NOSPLIT|NOFRAME, $0-0
	MOVQ SP, R12
	ANDQ $AREA_MASK, R12
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
	LEAQ 8(SP), SP             // rt_sigreturn(2) finds the frame above the return address
	MOVL $SYS_rt_sigreturn, AX
	SYSCALL
	HLT
leave:
	MOVL $1, 72(R12)           // Exited
	XORL DI, DI
	MOVL $SYS_exit, AX
	SYSCALL
	HLT

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

// func spinWhile(word *atomic.Uint32, v uint32, n int) bool
TEXT ·spinWhile(SB), NOSPLIT, $0-25
	MOVQ word+0(FP), DI
	MOVL v+8(FP), SI
	MOVQ n+16(FP), CX
spin:
	MOVL 0(DI), AX
	CMPL AX, SI
	JNE  changed
	PAUSE
	SUBQ $1, CX
	JG   spin
	MOVB $0, ret+24(FP)
	RET
changed:
	MOVB $1, ret+24(FP)
	RET
