// Computes for ever in memory and in all kinds of registers, and says after each round what they have.
//
// In x87 and SSE registers with FXSAVE and FXRSTOR, which is what KVM without hardware support has.

    .intel_syntax noprefix
    .code64

    .set area, 0x3000
    .set data, 0x100000

    mov rax, cr4
    or eax, 0x200                       // OSFXSR: without it there is no SSE
    mov cr4, rax
    mov eax, 1
    cpuid
    mov r12d, ecx
    bt r12d, 26                         // XSAVE
    jnc 0f
    mov rax, cr4
    or eax, 0x40000                     // OSXSAVE
    mov cr4, rax
0:
    mov rsi, 0x5851f42d4c957f2d
    mov rdi, 0x14057b7ef767814f
    mov rbx, 1
again:
    imul rbx, rsi
    add rbx, rdi
    mov rdx, rbx
    shr rdx, 44
    and edx, 0xffff8
    add rbx, [data + rdx]
    mov [data + rdx], rbx
    fxsave [area]
    add rbx, [area + 32]                // ST0
    add rbx, [area + 160]               // XMM0
    mov [area + 32], ebx
    mov [area + 160], rbx
    fxrstor [area]
    mov rax, dr2
    add rbx, rax
    mov dr2, rbx
    mov ecx, 0xc0000082                 // LSTAR
    rdmsr
    add ebx, eax
    mov eax, ebx
    xor edx, edx
    wrmsr
    mov ecx, 0xc0000102                 // KERNEL_GS_BASE
    rdmsr
    add ebx, eax
    mov eax, ebx
    xor edx, edx
    wrmsr
    bt r12d, 26
    jnc 1f
    xor ecx, ecx
    mov eax, ebx
    and eax, 2                          // SSE, on and off; XGETBV is not emulated everywhere
    or eax, 1
    xor edx, edx
    xsetbv
1:
    mov eax, ebx
    out 0x10, eax
    jmp again
