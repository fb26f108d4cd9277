// String I/O: sends and receives strings of bytes, words and double words, one of them longer than a
// page, and one backwards. Strings to send are at 0x4000, received ones from 0x6000 on.

    .intel_syntax noprefix
    .code16

    cld
    mov dx, 0x10
    mov si, 0x4000
    mov cx, 300
    rep outsb
    mov dx, 0x12
    mov si, 0x4000
    mov cx, 150
    rep outsw
    mov dx, 0x14
    mov si, 0x4000
    mov cx, 75
    rep outsd

    mov dx, 0x10
    mov di, 0x6000
    mov cx, 5000
    rep insb
    mov dx, 0x12
    mov di, 0x8000
    mov cx, 150
    rep insw
    mov dx, 0x14
    mov di, 0x9000
    mov cx, 75
    rep insd

    std                             // downwards: the last byte comes first
    mov dx, 0x16
    mov si, 0x4000 + 9
    mov cx, 10
    rep outsb
    cld
    mov dx, 0x18                    // one without a prefix, and one that repeats no times
    mov si, 0x4000
    outsb
    mov cx, 0
    rep outsb
    hlt
