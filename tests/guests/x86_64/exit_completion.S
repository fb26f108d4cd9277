// Reads a port, sends the value, reads MMIO, writes it, and does both at once. After the next OUT the
// host leads it elsewhere. So that the host knows where RIP has to be, the addresses behind the first
// five accesses are in RBX, RCX, RSI, RDI and RBP, and the one to be led to is in R8.

    .intel_syntax noprefix
    .code64

    mov r15d, 0xd0000000
    lea rbx, [rip + behind_in]
    lea rcx, [rip + behind_out]
    lea rsi, [rip + behind_read]
    lea rdi, [rip + behind_write]
    lea rbp, [rip + behind_both]
    lea r8, [rip + elsewhere]

    mov rax, -1
    in eax, 0x10                    // clears the upper half of RAX
behind_in:
    out 0x11, eax
behind_out:
    mov r9, [r15]
behind_read:
    mov [r15 + 8], r9
behind_write:
    xor [r15 + 16], r9
behind_both:
    mov eax, 1
    out 0x12, eax
    mov eax, 2                      // the host leads the guest away from here
    out 0x13, eax
elsewhere:
    mov eax, 3
    out 0x14, eax
    hlt
