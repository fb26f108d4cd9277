// MMIO from 32-bit code at 0xD0000000, where there is no memory: every width, read and written, and
// an instruction that does both.

    .intel_syntax noprefix
    .code32

    mov ebx, 0xd0000000
    mov byte ptr [ebx + 1], 0x11
    mov word ptr [ebx + 2], 0x2211
    mov dword ptr [ebx + 4], 0x44332211
    mov al, [ebx + 1]
    movzx ecx, word ptr [ebx + 2]
    mov edx, [ebx + 4]
    add dword ptr [ebx + 8], 5
    mov esi, [ebx + 0xc]            // nobody answers
    hlt
