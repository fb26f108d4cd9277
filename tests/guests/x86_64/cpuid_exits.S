// Sends EAX to EDX of CPUID's leaf 0x40000000, twice, and EAX of leaf 1.

    .intel_syntax noprefix
    .code64

    mov esi, 2
again:
    mov eax, 0x40000000
    mov ecx, 3
    cpuid
    out 0x10, eax
    mov eax, ebx
    out 0x11, eax
    mov eax, ecx
    out 0x12, eax
    mov eax, edx
    out 0x13, eax
    dec esi
    jnz again
    mov eax, 1
    cpuid
    out 0x10, eax
    hlt
