// 64-bit code: computes with registers that only it has, uses memory below and above 2 MiB through
// the page tables it was given, and says in which mode it is.

    .intel_syntax noprefix
    .code64

    mov rax, 0x123456789abcdef0
    mov r8, rax
    not r8                          // 0xedcba9876543210f
    mov r9d, 0xffffffff             // 32 bits written clear the upper 32
    lea r10, [r9 + r9 * 8 + 1]      // 9 * 0xffffffff + 1
    mov r11, -1
    mov rcx, 5
    imul r11, rcx                   // -5
    mov r12, rax
    rol r12, 12
    movzx r13, byte ptr [rip + data]
    movsx r14, byte ptr [rip + data]
    bswap rax
    mov r15, rax

    mov rbx, 0x3ffff8               // the last eight bytes of 4 MiB
    mov [rbx], r8
    mov rdx, [rbx]
    add rdx, 1
    push rdx
    pop rbp

    mov ecx, 0xc0000080             // EFER
    rdmsr
    out 0x10, eax
    mov rax, cr3
    out 0x10, eax
    mov ax, cs
    out 0x10, ax
    hlt

data:
    .byte 0x80
