// Sends what CPUID says: all of leaf 0x40000000 and 0x40000001, then leaf 1.

    .intel_syntax noprefix
    .code16

    mov ebp, 0x40000000
    call report
    inc ebp
    call report
    mov ebp, 1
    call report
    hlt

report:
    mov eax, ebp
    xor ecx, ecx
    cpuid
    out 0x10, eax
    mov eax, ebx
    out 0x11, eax
    mov eax, ecx
    out 0x12, eax
    mov eax, edx
    out 0x13, eax
    ret
