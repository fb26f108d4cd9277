// Sends CR2, CR8 and CR4's bit for time stamps as the host set them, and then sets others.

    .intel_syntax noprefix
    .code64

    mov rax, cr2
    mov rbx, rax                    // all 64 bits
    mov rax, cr8
    out 0x10, eax
    mov rax, cr4
    and eax, 4                      // TSD
    out 0x11, eax

    mov rax, 0x123456789abc
    mov cr2, rax
    mov eax, 9
    mov cr8, rax
    mov rax, cr0
    or eax, 0x10000                 // WP
    mov cr0, rax
    hlt
