// Waits for the host in many ways; RSI and R9 have the addresses of two instructions that do.

    .intel_syntax noprefix
    .code64

    mov ebx, 0xd0000000
    lea rsi, [rip + port]
    lea r9, [rip + skipped]
    mov eax, 0x55667788
port:
    in al, 0x11
    out 0x10, eax

    mov edx, 0x12
    mov edi, 0x4000
    mov ecx, 3
    cld
    rep insd
    mov rsi, rbx
    lea edi, [rbx + 8]
    cmpsd                           // two reads
    sete al
    out 0x10, al
    mov eax, 5
    add [rbx + 0x10], eax           // a read and a write

    mov eax, 0x1234
skipped:
    in eax, 0x13
    out 0x10, eax
    hlt
