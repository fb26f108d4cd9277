// Counts in EDX between accesses of every kind, for somebody who steps and jumps over the UD2.

    .intel_syntax noprefix
    .code64

    mov ebx, 0xd0000000
    xor edx, edx
    ud2
    inc edx
    mov [rbx], al                   // a device: the hypervisor emulates the instruction
    inc edx
    inc edx
    mov al, [rbx + 4]
    inc edx
    inc edx
    xor dword ptr [rbx + 8], 1
    inc edx
    inc edx
    out 0x10, al
    inc edx
    inc edx
    in al, 0x11
    inc edx
    inc edx
    lea rsi, [rbx + 0x10]
    mov edi, 0x3000
    mov ecx, 2
    cld
    rep movsb
    inc edx
    inc edx
    out 0x20, al
    hlt
