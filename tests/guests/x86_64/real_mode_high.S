// 16-bit code above 64 KiB: says where it thinks it is, and reads what lies beside it through CS.

    .intel_syntax noprefix
    .code16

    mov ax, cs
    out 0x10, ax                    // the segment
    call next
next:
    pop ax
    sub ax, offset next
    out 0x10, ax                    // how far the code is from where it was linked: not at all
    mov eax, cs:[data]
    out 0x10, eax
    mov ax, ds
    out 0x10, ax                    // the other segments are 0
    hlt

data:
    .long 0x12345678
