// Decimal arithmetic of 16-bit code; AX goes to port 0x10 after each.

    .intel_syntax noprefix
    .code16

    mov ax, 0x0019
    add al, 0x28
    daa
    out 0x10, ax
    mov ax, 0x0099
    add al, 0x01
    daa
    out 0x10, ax
    mov ax, 0x0042
    sub al, 0x15
    das
    out 0x10, ax
    mov ax, 0x0008
    add al, 0x07
    aaa
    out 0x10, ax
    mov ax, 0x0205
    sub al, 0x09
    aas
    out 0x10, ax
    mov ax, 63
    aam
    out 0x10, ax
    mov ax, 0x0603
    aad
    out 0x10, ax
    mov ax, 0xab
    .byte 0xd4, 0x10                // AAM with base 16
    out 0x10, ax
    hlt
