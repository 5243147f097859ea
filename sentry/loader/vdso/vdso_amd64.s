#include "textflag.h"

// The text of the guests' vDSO. Nothing here runs in the sentry: Build copies the bytes between vdsoText and vdsoEnd, finds each function behind its marker, and puts
// the distance to the vvar page in place of 0x5a5a5a5a. It is System V ABI code: arguments in DI and SI, no stack, every
// register that it changes is the caller's to save. Fields of the vvar page are those of ktime's vvarPage:
// seq 0, valid 4, baseTSC 8, mult 16, maxAge 24, mono 32, real 40, boot 48.

// R8 = the vvar page: lea r8, [rip+disp32].
#define VVAR BYTE $0x4c; BYTE $0x8d; BYTE $0x05; LONG $0x5a5a5a5a

#define MARK(n) PCALIGN $16; BYTE $0x0f; BYTE $0x0b; LONG $0x6f645676; BYTE $0x53; BYTE $n

// AX = the clock whose field has offset R9, in ns; jumps to slow if the page is of no use. Changes CX, DX, R10, R11.
#define READ_CLOCK(retry, wait, ahead, slow) \
retry: \
	MOVL 0(R8), R10; \
	TESTL $1, R10; \
	JNE  wait; \
	CMPL 4(R8), $0; \
	JEQ  slow; \
	LFENCE; \
	RDTSC; \
	SHLQ $32, DX; \
	ORQ  DX, AX; \
	XORL R11, R11; \
	SUBQ 8(R8), AX; \
	CMOVQCS R11, AX; \
	CMPQ AX, 24(R8); \
	JHI  slow; \
	MULQ 16(R8); \
	SHRQ $32, AX; \
	SHLQ $32, DX; \
	ORQ  DX, AX; \
	ADDQ (R8)(R9*1), AX; \
	CMPL R10, 0(R8); \
	JNE  retry; \
	JMP  ahead; \
wait: \
	PAUSE; \
	JMP  retry; \
ahead:

// AX = seconds, DX = nanoseconds of AX.
#define SPLIT \
	XORL DX, DX; \
	MOVL $1000000000, CX; \
	DIVQ CX

TEXT ·vdsoText(SB),NOSPLIT|NOFRAME,$0-0
	MARK(0)
	// int clock_gettime(clockid_t DI, struct timespec *SI)
	VVAR
	MOVL $40, R9
	TESTL DI, DI               // CLOCK_REALTIME
	JEQ  gettime
	CMPL DI, $5                // CLOCK_REALTIME_COARSE
	JEQ  gettime
	MOVL $32, R9
	CMPL DI, $1                // CLOCK_MONOTONIC
	JEQ  gettime
	CMPL DI, $6                // CLOCK_MONOTONIC_COARSE
	JEQ  gettime
	MOVL $48, R9
	CMPL DI, $7                // CLOCK_BOOTTIME
	JNE  gettimeSlow
gettime:
	READ_CLOCK(g1, g2, g3, gettimeSlow)
	SPLIT
	MOVQ AX, 0(SI)
	MOVQ DX, 8(SI)
	XORL AX, AX
	RET
gettimeSlow:
	MOVL $228, AX
	SYSCALL
	RET

	MARK(1)
	// int gettimeofday(struct timeval *DI, struct timezone *SI)
	VVAR
	MOVL $40, R9
	TESTQ DI, DI
	JEQ  zone
	READ_CLOCK(d1, d2, d3, daySlow)
	SPLIT
	MOVQ AX, 0(DI)
	MOVL DX, AX
	XORL DX, DX
	MOVL $1000, CX
	DIVL CX
	MOVQ AX, 8(DI)
zone:
	TESTQ SI, SI
	JEQ  dayDone
	MOVQ $0, 0(SI)
dayDone:
	XORL AX, AX
	RET
daySlow:
	MOVL $96, AX
	SYSCALL
	RET

	MARK(2)
	// time_t time(time_t *DI)
	VVAR
	MOVL $40, R9
	READ_CLOCK(t1, t2, t3, timeSlow)
	SPLIT
	TESTQ DI, DI
	JEQ  timeDone
	MOVQ AX, 0(DI)
timeDone:
	RET
timeSlow:
	MOVL $201, AX
	SYSCALL
	RET

	MARK(3)
	// int getcpu(unsigned *DI, unsigned *SI, void *). Linux keeps the CPU's number in the limit of segment 0x7b.
	MOVL $0x7b, AX
	BYTE $0x0f; BYTE $0x03; BYTE $0xc0 // lsl eax, eax
	JNE  cpuSlow
	MOVL AX, DX
	ANDL $0xfff, DX
	TESTQ DI, DI
	JEQ  node
	MOVL DX, 0(DI)
node:
	TESTQ SI, SI
	JEQ  cpuDone
	MOVL $0, 0(SI)
cpuDone:
	XORL AX, AX
	RET
cpuSlow:
	MOVL $309, AX
	SYSCALL
	RET

	MARK(4)
	// int clock_getres(clockid_t DI, struct timespec *SI)
	CMPL DI, $1
	JLS  fine
	CMPL DI, $4                // CLOCK_MONOTONIC_RAW
	JEQ  fine
	CMPL DI, $7
	JEQ  fine
	MOVL $229, AX
	SYSCALL
	RET
fine:
	TESTQ SI, SI
	JEQ  resDone
	MOVQ $0, 0(SI)
	MOVQ $1, 8(SI)
resDone:
	XORL AX, AX
	RET
	MARK(5)
	RET

// func textAddr() uintptr
TEXT ·textAddr(SB),NOSPLIT,$0-8
	LEAQ ·vdsoText(SB), AX
	MOVQ AX, ret+0(FP)
	RET
