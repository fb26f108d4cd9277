// Ring 3 and ports: those that the bitmap of the task state segment allows, and others.

    .intel_syntax noprefix
    .code64

    lgdt [rip + gdtr]
    push 8
    lea rax, [rip + flushed]
    push rax
    .byte 0x48, 0xcb
flushed:
    mov dword ptr [0x3004], 0x7000  // RSP0
    mov dword ptr [0x3008], 0
    mov word ptr [0x3066], 0x68     // the bitmap: 0x3068
    mov edi, 0x3068
    mov eax, 0xffffffff
    mov ecx, 33
    cld
    rep stosd
    btr dword ptr [0x3068], 0x10    // ports 0x10 and 0x12 are allowed
    btr dword ptr [0x3068], 0x12
    mov eax, 0x28
    ltr ax
    lea rax, [rip + handler]
    mov dword ptr [0x40d0], 0
    mov [0x40d0], ax                // #GP
    mov word ptr [0x40d2], 8
    mov dword ptr [0x40d4], 0x00018e00
    mov qword ptr [0x40d8], 0
    lidt [rip + idtr]
    or dword ptr [0x9000], 4
    or dword ptr [0xa000], 4
    or dword ptr [0xb000], 4
    mov rax, cr3
    mov cr3, rax
    push 0x1b
    push 0x6000
    push 0x2
    push 0x23
    lea rax, [rip + user]
    push rax
    iretq

handler:
    pop rax                         // error code
    mov al, 0xee
    out 0x20, al
    add qword ptr [rsp], 2
    cmp r8d, 1
    je done
    iretq
done:
    hlt

user:
    mov al, 1
    out 0x10, al
    mov al, 2
    out 0x11, al                    // not this one
    mov al, 3
    out 0x12, al
    in al, 0x13
    out 0x10, eax                   // four ports, of which one is not allowed
    mov r8d, 1
    out 0x13, al

    .balign 8
gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cff3000000ffff, 0x00affb000000ffff
    .quad 0x00008900300000ec, 0
gdtr:
    .word 7 * 8 - 1
    .quad gdt
idtr:
    .word 32 * 16 - 1
    .quad 0x4000
