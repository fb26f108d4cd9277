// Sends 10000 numbers, each one more than the last.

    .intel_syntax noprefix
    .code16

    xor eax, eax
    mov ecx, 10000
count:
    inc eax
    out 0x10, eax
    dec ecx
    jnz count
    hlt
