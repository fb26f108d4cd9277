// SYSCALL from ring 3 and SYSRET back.

    .intel_syntax noprefix
    .code64

    lgdt [rip + gdtr]
    push 8
    lea rax, [rip + flushed]
    push rax
    .byte 0x48, 0xcb
flushed:
    or dword ptr [0x9000], 4
    or dword ptr [0xa000], 4
    or dword ptr [0xb000], 4
    mov rax, cr3
    mov cr3, rax
    mov ecx, 0xc0000080             // EFER.SCE
    rdmsr
    bts eax, 0
    wrmsr
    mov ecx, 0xc0000081             // STAR: kernel 8, user 0x13 (CS 0x20 | 3, SS 0x18 | 3)
    xor eax, eax
    mov edx, 0x00130008
    wrmsr
    mov ecx, 0xc0000082             // LSTAR
    lea rax, [rip + entry]
    xor edx, edx
    wrmsr
    mov ecx, 0xc0000084             // SFMASK: clears the carry and the direction flag
    mov eax, 0x401
    wrmsr
    lea rcx, [rip + user]
    mov r11d, 0x202
    mov esp, 0x6000
    .byte 0x48, 0x0f, 0x07          // SYSRETQ

entry:
    mov r8, rcx                     // RIP and RFLAGS of who calls
    mov r9, r11
    pushfq
    pop rax
    out 0x20, eax
    mov ax, cs
    movzx eax, ax
    out 0x21, eax
    mov ax, ss
    movzx eax, ax
    out 0x22, eax
    lea rax, [rip + user]
    sub r8, rax
    mov eax, r8d
    out 0x23, eax
    mov eax, r9d
    out 0x24, eax
    mov eax, r12d
    out 0x25, eax
    cmp r12d, 2
    je last
    mov r11, r9
    .byte 0x48, 0x0f, 0x07
last:
    hlt

user:
    mov r12d, 1
    stc
    std
    syscall
behind:
    mov ax, cs
    movzx r12d, ax
    lahf
    mov r12d, 2
    syscall

    .balign 8
gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cff3000000ffff, 0x00affb000000ffff
gdtr:
    .word 5 * 8 - 1
    .quad gdt
