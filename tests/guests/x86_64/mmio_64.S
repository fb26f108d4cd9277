// MMIO from 64-bit code at 0xD0000000, where there is no memory: every width, read and written, with
// and without extension, answered and not; an instruction that reads and writes; a string copied to
// the device.

    .intel_syntax noprefix
    .code64

    mov ebx, 0xd0000000
    mov rax, 0x8877665544332211
    mov [rbx + 1], al
    mov [rbx + 2], ax
    mov [rbx + 4], eax
    mov [rbx + 8], rax
    mov qword ptr [rbx + 0x10], -2  // 32 bits, extended with their sign

    movzx r8d, byte ptr [rbx + 1]
    movsx r9, word ptr [rbx + 2]
    mov r10, -1
    mov r10d, [rbx + 4]             // clears the upper half
    mov r11, [rbx + 8]
    mov cl, [rbx + 3]               // leaves the rest of rcx alone

    movzx r12d, byte ptr [rbx + 1]  // nobody answers these four
    movzx r13d, word ptr [rbx + 2]
    mov r14d, [rbx + 4]
    mov r15, [rbx + 8]

    xor qword ptr [rbx + 0x18], rax
    xchg [rbx + 0x20], rax

    lea rsi, [rip + text]
    lea rdi, [rbx + 0x40]
    mov ecx, 4
    cld
    rep movsd
    hlt

text:
    .ascii "a string of text"
