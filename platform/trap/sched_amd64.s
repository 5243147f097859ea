#include "textflag.h"

#include "go_asm.h"

// func spinning() *atomic.Int32
TEXT ·spinning(SB), NOSPLIT, $0-8
	LEAQ runtime·sched(SB), AX
	ADDQ $const_spinningOffset, AX
	MOVQ AX, ret+0(FP)
	RET
