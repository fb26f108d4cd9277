// Exceptions and software interrupts of real mode, through its table of vectors. Each handler sends its
// vector to port 0x20 and the flags that were pushed to port 0x21, and goes on at DI.

    .intel_syntax noprefix
    .code16

    mov sp, 0x8000
    mov word ptr [0], offset vector0
    mov word ptr [2], 0
    mov word ptr [4 * 3], offset vector3
    mov word ptr [4 * 3 + 2], 0
    mov word ptr [4 * 4], offset vector4
    mov word ptr [4 * 4 + 2], 0
    mov word ptr [4 * 5], offset vector5
    mov word ptr [4 * 5 + 2], 0
    mov word ptr [4 * 6], offset vector6
    mov word ptr [4 * 6 + 2], 0
    mov word ptr [4 * 0x42], offset vector42
    mov word ptr [4 * 0x42 + 2], 0

    mov di, offset next1
    xor dx, dx
    xor cx, cx
    div cx
next1:
    mov di, offset next2
    int3
next2:
    mov di, offset next3
    mov al, 0x7f
    add al, 1
    into
next3:
    mov di, offset next4
    mov word ptr [0x3000], 10
    mov word ptr [0x3002], 20
    mov ax, 21
    bound ax, [0x3000]
next4:
    mov ax, 20
    bound ax, [0x3000]              // within
    mov di, offset next5
    ud2
next5:
    mov di, offset next6
    sti
    int 0x42
next6:
    pushf
    pop ax
    and ax, 0xff2
    out 0x10, ax
    hlt

    .macro handler name, number
\name:
    mov al, \number
    jmp report
    .endm
    handler vector0, 0
    handler vector3, 3
    handler vector4, 4
    handler vector5, 5
    handler vector6, 6
    handler vector42, 0x42
report:
    out 0x20, al
    pop ax
    pop ax
    pop ax
    push ax
    and ax, 0xff2
    out 0x21, ax
    push cs
    push di
    iret
