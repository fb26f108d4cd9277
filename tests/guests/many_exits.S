// Sends 100000 numbers, each one more than the last.

    .intel_syntax noprefix
    .code16

    xor eax, eax
    mov ecx, 100000
count:
    inc eax
    out 0x10, eax
    dec ecx
    jnz count
    hlt
