// Computes for ever in all kinds of registers, general, x87, SSE, debug and model-specific ones, and
// says after each round what they have.

    .intel_syntax noprefix
    .code64

    mov rax, cr4
    or eax, 0x600                       // OSFXSR, OSXMMEXCPT
    mov cr4, rax
    mov rsi, 0x5851f42d4c957f2d
    mov rdi, 0x14057b7ef767814f
    mov eax, 1
    xorps xmm0, xmm0
    fldz
again:
    mov ecx, 50
step:
    imul rax, rsi
    add rax, rdi
    cvtsi2sd xmm1, eax
    addsd xmm0, xmm1
    fld1
    faddp st(1), st
    dec ecx
    jnz step
    mov r9, rax
    mov dr1, rax
    mov ecx, 0xc0000082                 // LSTAR
    mov edx, 0
    wrmsr
    mov eax, r9d
    out 0x10, eax
    movq r8, xmm0
    mov eax, r8d
    out 0x11, eax
    fist dword ptr [0x3000]
    mov eax, [0x3000]
    out 0x12, eax
    mov ecx, 0xc0000082
    rdmsr
    mov rbx, dr1
    add eax, ebx
    out 0x13, eax
    mov rax, r9
    jmp again
