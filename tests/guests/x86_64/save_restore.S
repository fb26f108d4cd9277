// Computes for ever in all kinds of registers, general, x87, SSE, debug and model-specific ones, and
// says after each round what they have.
//
// It has segments that cannot be used, as every 64-bit system has, and 64 bits in MSRs of which AMD's
// processors have 32.
//
// In x87 and SSE registers with FXSAVE and FXRSTOR, which is what KVM without hardware support has.

    .intel_syntax noprefix
    .code64

    .set area, 0x3000

    mov rax, cr4
    or eax, 0x200                       // OSFXSR: without it there is no SSE
    mov cr4, rax
    xor eax, eax
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    mov eax, 0x3000
    mov edx, 0xfffffe00
    mov ecx, 0x175                      // SYSENTER_ESP
    wrmsr
    mov ecx, 0x176                      // SYSENTER_EIP
    wrmsr
    mov rsi, 0x5851f42d4c957f2d
    mov rdi, 0x14057b7ef767814f
    mov eax, 1
again:
    mov r10d, 50
step:
    imul rax, rsi
    add rax, rdi
    fxsave [area]
    add [area + 32], rax                // ST0
    add [area + 160], rax               // XMM0
    add [area + 160 + 240], rdi         // XMM15
    fxrstor [area]
    dec r10d
    jnz step
    mov r9, rax
    mov dr1, rax
    mov ecx, 0xc0000082                 // LSTAR
    mov edx, 0
    wrmsr
    mov eax, r9d
    out 0x10, eax
    mov dword ptr [area + 160], 0
    mov dword ptr [area + 32], 0
    fxsave [area]
    mov eax, [area + 160]
    add eax, [area + 160 + 240]
    out 0x11, eax
    mov eax, [area + 32]
    out 0x12, eax
    mov ecx, 0xc0000082
    rdmsr
    mov rbx, dr1
    add eax, ebx
    out 0x13, eax
    mov rax, r9
    jmp again
