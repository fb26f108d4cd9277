// Writes to some pages of memory and reads others, twice.

    .intel_syntax noprefix
    .code16

    mov byte ptr [0x5000], 1
    mov al, [0x6000]
    mov byte ptr [0x7fff], 1
    out 0x10, al
    mov al, [0x5000]
    mov word ptr [0x9fff], 0x0101   // across a border
    out 0x10, al
    hlt
