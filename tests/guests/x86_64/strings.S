// String instructions on memory, in all widths, repeated, both ways, with 32-bit addresses, and none.

    .intel_syntax noprefix
    .code64

    cld
    mov edi, 0x20000                // 0x20000: bytes 0 to 255
    xor eax, eax
    mov ecx, 256
bytes:
    stosb
    inc al
    dec ecx
    jnz bytes
    mov esi, 0x20000
    mov edi, 0x21000
    mov ecx, 32
    rep movsq
    mov rbx, rdi                    // behind the last byte
    mov edi, 0x22000
    mov ax, 0x1234
    mov ecx, 100
    rep stosw
    mov esi, 0x20000
    mov edi, 0x21000
    mov byte ptr [rdi + 200], 0
    mov ecx, 256
    repe cmpsb                      // stops behind the difference
    mov r8, rsi
    mov r9, rcx
    mov edi, 0x20000
    mov al, 0x80
    mov ecx, 256
    repne scasb
    mov r10, rdi
    std
    mov esi, 0x200ff
    mov edi, 0x230ff
    mov ecx, 256
    rep movsb
    mov r11, rdi
    mov esi, 0x20008
    lodsq
    mov r12, rax
    cld
    mov rcx, 0x100000000            // ECX is 0: no repetition with 32-bit addresses
    mov esi, 0x20000
    mov edi, 0x24000
    addr32 rep movsb
    mov r13, rcx
    mov edi, 0x24ff8                // overlapping, and across a page
    mov esi, 0x24ff0
    mov rax, 0x1122334455667788
    mov [rsi], rax
    mov ecx, 24
    rep movsb
    mov r14, [0x25008]
    out 0x10, al
    hlt
