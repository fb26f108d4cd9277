// Waits for the host in many ways: an answer to IN, to INS, to a read of MMIO, and in the middle of
// instructions that make two accesses or a string of them.

    .intel_syntax noprefix
    .code64

    mov ebx, 0xd0000000
    out 0x10, eax
    in eax, 0x11
    mov edx, 0x12
    mov edi, 0x4000
    mov ecx, 3
    cld
    rep insd
    mov eax, [rbx]
    add [rbx + 8], eax
    lea rsi, [rbx + 0x10]
    mov edi, 0x5000
    mov ecx, 2
    rep movsd
    hlt
