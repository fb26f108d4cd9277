// Scatters numbers over a MiB of memory for ever, and says after each round a sum of what was there.

    .intel_syntax noprefix
    .code64

    mov rsi, 0x5851f42d4c957f2d
    mov rdi, 0x14057b7ef767814f
    mov ebx, 1
    xor eax, eax
0:
    mov ecx, 16
1:
    imul rbx, rsi
    add rbx, rdi
    mov rdx, rbx
    shr rdx, 44
    and edx, 0xffff8
    add rax, [0x100000 + rdx]
    xor [0x100000 + rdx], rbx
    dec ecx
    jnz 1b
    out 0x10, eax
    jmp 0b
