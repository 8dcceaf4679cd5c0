#include "textflag.h"

// A key (gcm_amd64.go): the round keys, then the hash key's powers, the sixteenth first,
// and the sums of their halves. P8 and S8 are the eighth's.
#define P16 240
#define S16 496
#define P8 368
#define S8 624

// Byte order: a block's bytes reversed, in both halves of a register.
DATA reversed<>+0(SB)/8, $0x08090a0b0c0d0e0f
DATA reversed<>+8(SB)/8, $0x0001020304050607
DATA reversed<>+16(SB)/8, $0x08090a0b0c0d0e0f
DATA reversed<>+24(SB)/8, $0x0001020304050607
GLOBL reversed<>(SB), RODATA|NOPTR, $32

// The counters of the first two blocks, as what is added to the first.
DATA pair<>+0(SB)/8, $0
DATA pair<>+8(SB)/8, $0
DATA pair<>+16(SB)/8, $1
DATA pair<>+24(SB)/8, $0
GLOBL pair<>(SB), RODATA|NOPTR, $32

// Two more, in both halves.
DATA two<>+0(SB)/8, $2
DATA two<>+8(SB)/8, $0
DATA two<>+16(SB)/8, $2
DATA two<>+24(SB)/8, $0
GLOBL two<>(SB), RODATA|NOPTR, $32

// x^128 + x^127 + x^126 + x^121 + 1, as the reduction wants it.
DATA poly<>+0(SB)/8, $1
DATA poly<>+8(SB)/8, $0xc200000000000000
DATA poly<>+16(SB)/8, $1
DATA poly<>+24(SB)/8, $0xc200000000000000
GLOBL poly<>(SB), RODATA|NOPTR, $32

// Registers of all that follows:
//   AX key, BX groups left, CX where GHASH reads, DI dst, SI src
//   Y0-Y7 sixteen blocks in AES, Y12 its round key, Y14 the next two counters, Y15 reversed
//   Y11, Y13 for GHASH, Y8 products of low halves, Y9 of sums, Y10 of high ones
//   X8 also GHASH's sum between groups; its register's upper half is 0 then

#define COUNTER(r) \
	VPSHUFB Y15, Y14, r; \
	VPADDD two<>(SB), Y14, Y14; \
	VPXOR Y12, r, r

// COUNTERS makes the next sixteen counter blocks.
#define COUNTERS \
	VBROADCASTI128 (AX), Y12; \
	COUNTER(Y0); \
	COUNTER(Y1); \
	COUNTER(Y2); \
	COUNTER(Y3); \
	COUNTER(Y4); \
	COUNTER(Y5); \
	COUNTER(Y6); \
	COUNTER(Y7)

#define ROUND(n) \
	VBROADCASTI128 (16*n)(AX), Y12; \
	VAESENC Y12, Y0, Y0; \
	VAESENC Y12, Y1, Y1; \
	VAESENC Y12, Y2, Y2; \
	VAESENC Y12, Y3, Y3; \
	VAESENC Y12, Y4, Y4; \
	VAESENC Y12, Y5, Y5; \
	VAESENC Y12, Y6, Y6; \
	VAESENC Y12, Y7, Y7

// FINISH is the last round, with src, to dst.
#define FINISH(n, r) \
	VPXOR (32*n)(SI), Y12, Y11; \
	VAESENCLAST Y11, r, r; \
	VMOVDQU r, (32*n)(DI)

#define LASTROUND \
	VBROADCASTI128 (16*14)(AX), Y12; \
	FINISH(0, Y0); \
	FINISH(1, Y1); \
	FINISH(2, Y2); \
	FINISH(3, Y3); \
	FINISH(4, Y4); \
	FINISH(5, Y5); \
	FINISH(6, Y6); \
	FINISH(7, Y7); \
	ADDQ $256, SI; \
	ADDQ $256, DI

// FIRST multiplies the first two blocks at CX, the sum added to the first, by the powers
// at p, with three products instead of four (Karatsuba); NEXT the n-th two.
#define FIRST(p, s) \
	VMOVDQU (CX), Y11; \
	VPSHUFB Y15, Y11, Y11; \
	VPXOR Y8, Y11, Y11; \
	VPCLMULQDQ $0x00, p(AX), Y11, Y8; \
	VPCLMULQDQ $0x11, p(AX), Y11, Y10; \
	VPSHUFD $0x4e, Y11, Y13; \
	VPXOR Y13, Y11, Y11; \
	VPCLMULQDQ $0x00, s(AX), Y11, Y9

#define NEXT(n, p, s) \
	VMOVDQU (32*n)(CX), Y11; \
	VPSHUFB Y15, Y11, Y11; \
	VPCLMULQDQ $0x00, (p+32*n)(AX), Y11, Y13; \
	VPXOR Y13, Y8, Y8; \
	VPCLMULQDQ $0x11, (p+32*n)(AX), Y11, Y13; \
	VPXOR Y13, Y10, Y10; \
	VPSHUFD $0x4e, Y11, Y13; \
	VPXOR Y13, Y11, Y11; \
	VPCLMULQDQ $0x00, (s+32*n)(AX), Y11, Y11; \
	VPXOR Y11, Y9, Y9

// REDUCE takes the products, of low halves, of sums and of high halves, to the sum.
#define REDUCE \
	VPXOR Y8, Y9, Y9; \
	VPXOR Y10, Y9, Y9; \
	VMOVDQU poly<>(SB), Y11; \
	VPCLMULQDQ $0x01, Y8, Y11, Y13; \
	VPSHUFD $0x4e, Y8, Y8; \
	VPXOR Y8, Y9, Y9; \
	VPXOR Y13, Y9, Y9; \
	VPCLMULQDQ $0x01, Y9, Y11, Y13; \
	VPSHUFD $0x4e, Y9, Y9; \
	VPXOR Y9, Y10, Y10; \
	VPXOR Y13, Y10, Y10; \
	VEXTRACTI128 $1, Y10, X11; \
	VPXOR X11, X10, X8

// BOTH is sixteen blocks in AES, and GHASH of sixteen at CX.
#define BOTH \
	COUNTERS; \
	ROUND(1); \
	FIRST(P16, S16); \
	ROUND(2); \
	NEXT(1, P16, S16); \
	ROUND(3); \
	ROUND(4); \
	NEXT(2, P16, S16); \
	ROUND(5); \
	NEXT(3, P16, S16); \
	ROUND(6); \
	ROUND(7); \
	NEXT(4, P16, S16); \
	ROUND(8); \
	NEXT(5, P16, S16); \
	ROUND(9); \
	ROUND(10); \
	NEXT(6, P16, S16); \
	ROUND(11); \
	NEXT(7, P16, S16); \
	ROUND(12); \
	REDUCE; \
	ROUND(13); \
	LASTROUND

#define COUNTING \
	VMOVDQU reversed<>(SB), Y15; \
	VBROADCASTI128 (DX), Y14; \
	VPADDD pair<>(SB), Y14, Y14

#define ARGUMENTS \
	MOVQ k+0(FP), AX; \
	MOVQ counter+8(FP), DX; \
	MOVQ sum+16(FP), R8; \
	MOVQ dst+24(FP), DI; \
	MOVQ src+32(FP), SI; \
	MOVQ groups+40(FP), BX

#define ROUNDS \
	ROUND(1); \
	ROUND(2); \
	ROUND(3); \
	ROUND(4); \
	ROUND(5); \
	ROUND(6); \
	ROUND(7); \
	ROUND(8); \
	ROUND(9); \
	ROUND(10); \
	ROUND(11); \
	ROUND(12); \
	ROUND(13)

// func sealGroups(k *key, counter, sum *[16]byte, dst, src *byte, groups int)
TEXT ·sealGroups(SB), NOSPLIT, $0-48
	ARGUMENTS
	COUNTING
	VMOVDQU (R8), X8
	MOVQ DI, CX
	COUNTERS
	ROUNDS
	LASTROUND
	DECQ BX
	JZ   sealed

sealing: // GHASH is of the blocks before
	BOTH
	ADDQ $256, CX
	DECQ BX
	JNZ  sealing

sealed:
	FIRST(P16, S16)
	NEXT(1, P16, S16)
	NEXT(2, P16, S16)
	NEXT(3, P16, S16)
	NEXT(4, P16, S16)
	NEXT(5, P16, S16)
	NEXT(6, P16, S16)
	NEXT(7, P16, S16)
	REDUCE
	VMOVDQU X8, (R8)
	VZEROUPPER
	RET

// func openGroups(k *key, counter, sum *[16]byte, dst, src *byte, groups int)
TEXT ·openGroups(SB), NOSPLIT, $0-48
	ARGUMENTS
	COUNTING
	VMOVDQU (R8), X8

opening:
	MOVQ SI, CX
	BOTH
	DECQ BX
	JNZ  opening
	VMOVDQU X8, (R8)
	VZEROUPPER
	RET

// func hashEights(k *key, sum *[16]byte, src *byte, eights int)
TEXT ·hashEights(SB), NOSPLIT, $0-32
	MOVQ k+0(FP), AX
	MOVQ sum+8(FP), R8
	MOVQ src+16(FP), CX
	MOVQ eights+24(FP), BX
	VMOVDQU reversed<>(SB), Y15
	VMOVDQU (R8), X8

hashing:
	FIRST(P8, S8)
	NEXT(1, P8, S8)
	NEXT(2, P8, S8)
	NEXT(3, P8, S8)
	REDUCE
	ADDQ $128, CX
	DECQ BX
	JNZ  hashing
	VMOVDQU X8, (R8)
	VZEROUPPER
	RET

// func keystream(k *key, counter *[16]byte, dst *[256]byte)
TEXT ·keystream(SB), NOSPLIT, $0-24
	MOVQ k+0(FP), AX
	MOVQ counter+8(FP), DX
	MOVQ dst+16(FP), DI
	COUNTING
	COUNTERS
	ROUNDS
	VBROADCASTI128 (16*14)(AX), Y12
	VAESENCLAST Y12, Y0, Y0
	VAESENCLAST Y12, Y1, Y1
	VAESENCLAST Y12, Y2, Y2
	VAESENCLAST Y12, Y3, Y3
	VAESENCLAST Y12, Y4, Y4
	VAESENCLAST Y12, Y5, Y5
	VAESENCLAST Y12, Y6, Y6
	VAESENCLAST Y12, Y7, Y7
	VMOVDQU Y0, (DI)
	VMOVDQU Y1, 32(DI)
	VMOVDQU Y2, 64(DI)
	VMOVDQU Y3, 96(DI)
	VMOVDQU Y4, 128(DI)
	VMOVDQU Y5, 160(DI)
	VMOVDQU Y6, 192(DI)
	VMOVDQU Y7, 224(DI)
	VZEROUPPER
	RET

// func multiply(a, b *[16]byte)
TEXT ·multiply(SB), NOSPLIT, $0-16
	MOVQ a+0(FP), R8
	MOVQ b+8(FP), R9
	VMOVDQU (R8), X4
	VMOVDQU (R9), X5
	VPCLMULQDQ $0x00, Y5, Y4, Y8
	VPCLMULQDQ $0x11, Y5, Y4, Y10
	VPCLMULQDQ $0x01, Y5, Y4, Y9
	VPCLMULQDQ $0x10, Y5, Y4, Y6
	VPXOR Y6, Y9, Y9
	VPXOR Y8, Y9, Y9 // REDUCE takes it for the product of sums
	VPXOR Y10, Y9, Y9
	REDUCE
	VMOVDQU X8, (R8)
	VZEROUPPER
	RET

// SPREAD adds to each word of r those below it, and X2.
#define SPREAD(r) \
	VPSLLDQ $4, r, X3; \
	VPXOR X3, r, r; \
	VPSLLDQ $4, X3, X3; \
	VPXOR X3, r, r; \
	VPSLLDQ $4, X3, X3; \
	VPXOR X3, r, r; \
	VPXOR X2, r, r

#define EVEN(rcon, n) \
	VAESKEYGENASSIST $rcon, X1, X2; \
	VPSHUFD $0xff, X2, X2; \
	SPREAD(X0); \
	VMOVDQU X0, (16*n)(AX)

#define ODD(n) \
	VAESKEYGENASSIST $0, X0, X2; \
	VPSHUFD $0xaa, X2, X2; \
	SPREAD(X1); \
	VMOVDQU X1, (16*n)(AX)

// func expand(k *key, raw *[32]byte)
TEXT ·expand(SB), NOSPLIT, $0-16
	MOVQ k+0(FP), AX
	MOVQ raw+8(FP), SI
	VMOVDQU (SI), X0
	VMOVDQU 16(SI), X1
	VMOVDQU X0, (AX)
	VMOVDQU X1, 16(AX)
	EVEN(1, 2)
	ODD(3)
	EVEN(2, 4)
	ODD(5)
	EVEN(4, 6)
	ODD(7)
	EVEN(8, 8)
	ODD(9)
	EVEN(16, 10)
	ODD(11)
	EVEN(32, 12)
	ODD(13)
	EVEN(64, 14)
	VZEROUPPER
	RET

// func leaf7() (ecx uint32)
TEXT ·leaf7(SB), NOSPLIT, $0-4
	MOVL $7, AX
	XORL CX, CX
	CPUID
	MOVL CX, ecx+0(FP)
	RET
