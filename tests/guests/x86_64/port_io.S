// Port I/O of every width, by immediate port and through DX. What is read is sent on to another port,
// all 32 bits of EAX, which shows what a narrow read leaves alone.

    .intel_syntax noprefix
    .code16

    mov eax, 0x44332211
    out 0x11, al
    out 0x12, ax
    out 0x13, eax
    mov dx, 0x3f8
    out dx, al
    mov dx, 0xfff0
    out dx, ax
    mov dx, 0xabc
    out dx, eax

    in al, 0x11                     // al only
    out 0x20, eax
    in ax, 0x12                     // ax only
    out 0x20, eax
    in eax, 0x13
    out 0x20, eax
    mov dx, 0x3f8
    in al, dx                       // nobody answers these three
    out 0x20, eax
    mov dx, 0xfff0
    in ax, dx
    out 0x20, eax
    mov dx, 0xabc
    in eax, dx
    out 0x20, eax
    hlt
