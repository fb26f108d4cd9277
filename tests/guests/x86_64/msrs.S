// Sends IA32_LSTAR as it finds it, writes IA32_LSTAR and IA32_STAR, and exchanges the base of GS with
// IA32_KERNEL_GS_BASE.

    .intel_syntax noprefix
    .code64

    mov ecx, 0xc0000082             // IA32_LSTAR
    rdmsr
    out 0x10, eax
    mov eax, edx
    out 0x10, eax

    mov eax, 0x9abcdef0
    mov edx, 0xffff8123
    wrmsr
    mov ecx, 0xc0000081             // IA32_STAR
    xor eax, eax
    mov edx, 0x00180010
    wrmsr

    swapgs
    mov eax, gs:[8]
    out 0x10, eax
    hlt
