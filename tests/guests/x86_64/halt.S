// Halts twice, with the address behind each HLT in BX.

    .intel_syntax noprefix
    .code16

    mov bx, offset first
    hlt
first:
    mov bx, offset second
    hlt
second:
