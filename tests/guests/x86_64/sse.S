// SSE2: integers, floating point, shuffles, and MXCSR's flags.

    .intel_syntax noprefix
    .code64

    mov rax, cr4
    or eax, 0x600                   // OSFXSR, OSXMMEXCPT
    mov cr4, rax
    lea rbx, [rip + data]
    movups xmm0, [rbx]
    movups xmm1, [rbx + 16]
    movaps xmm2, xmm0
    paddd xmm2, xmm1
    movups [0x3000], xmm2
    pshufd xmm3, xmm2, 0x1b
    movups [0x3010], xmm3
    movaps xmm4, xmm0
    pcmpgtd xmm4, xmm1
    pmovmskb eax, xmm4
    out 0x10, eax
    mov eax, 7
    cvtsi2sd xmm5, eax
    mov eax, 2
    cvtsi2sd xmm6, eax
    divsd xmm5, xmm6
    movq rax, xmm5
    movq [0x3020], xmm5
    cvttsd2si eax, xmm5
    out 0x10, eax
    cvtsd2si eax, xmm5              // to the even one
    out 0x10, eax
    stmxcsr [0x3030]
    mov eax, [0x3030]
    and eax, 0x3f
    out 0x11, eax                   // inexact
    xorps xmm6, xmm6
    ldmxcsr [rbx + 32]
    divsd xmm5, xmm6
    stmxcsr [0x3030]
    mov eax, [0x3030]
    and eax, 0x3f
    out 0x11, eax                   // divided by zero
    ucomisd xmm5, xmm6
    seta al
    movzx eax, al
    out 0x10, eax
    movd xmm7, eax
    punpcklbw xmm7, xmm7
    movd eax, xmm7
    out 0x10, eax
    hlt

    .balign 16
data:
    .long 1, 2, 3, 0x7fffffff
    .long 10, -20, 30, 1
    .long 0x1f80
