// Writes to some pages of memory and reads others, twice; then has a port write to some.

    .intel_syntax noprefix
    .code16

    mov byte ptr [0x5000], 1
    mov al, [0x6000]
    mov byte ptr [0x7fff], 1
    out 0x10, al
    mov al, [0x5000]
    mov word ptr [0x9fff], 0x0101   // across a border
    out 0x10, al
    mov di, 0xcffe
    mov cx, 4
    mov dx, 0x12
    cld
    rep insb                        // across another
    out 0x10, al
    hlt
