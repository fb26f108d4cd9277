// Says again and again, with its lower half and then its upper one, what the time stamp counter counts.

    .intel_syntax noprefix
    .code16

again:
    rdtsc
    out 0x10, eax
    mov eax, edx
    out 0x11, eax
    jmp again
