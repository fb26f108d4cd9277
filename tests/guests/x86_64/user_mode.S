// Ring 3 of 64-bit code: goes there by IRETQ, comes back by exceptions, whose handler is on another stack.

    .intel_syntax noprefix
    .code64

    // Descriptors: 64-bit code, data, both for ring 3, and a task state segment at 0x3000.
    lgdt [rip + gdtr]
    push 8
    lea rax, [rip + flushed]
    push rax
    .byte 0x48, 0xcb                // far return
flushed:
    mov dword ptr [0x3004], 0x7000  // RSP0
    mov dword ptr [0x3008], 0
    mov word ptr [0x3066], 0x68     // no bitmap of ports
    mov eax, 0x28
    ltr ax
    lea rax, [rip + handler]
    mov esi, 0x4000
    mov ecx, 32
gate:
    mov [rsi], ax
    mov word ptr [rsi + 2], 8
    mov word ptr [rsi + 4], 0x8e00
    mov rdx, rax
    shr rdx, 16
    mov [rsi + 6], dx
    mov qword ptr [rsi + 8], 0
    add esi, 16
    dec ecx
    jnz gate
    lidt [rip + idtr]
    // The pages for ring 3, too: the first 2 MiB.
    or dword ptr [0x9000], 4
    or dword ptr [0xa000], 4
    or dword ptr [0xb000], 4
    mov rax, cr3
    mov cr3, rax

    lea rbx, [rip + user]
    mov r15, rbx
go:
    push 0x18 | 3                   // SS
    push 0x6000                     // RSP
    push 0x2                        // RFLAGS
    push 0x20 | 3                   // CS
    push r15
    iretq

handler:
    // #UD and #GP: the second pushes an error code, which is 0 here.
    mov rax, [rsp]
    test rax, rax
    jnz no_code
    add rsp, 8
no_code:
    mov eax, [rsp]                  // RIP, CS, RFLAGS, RSP, SS
    sub eax, ebx
    out 0x20, eax
    mov eax, [rsp + 8]
    out 0x21, eax
    mov eax, [rsp + 24]
    out 0x22, eax
    mov eax, [rsp + 32]
    out 0x23, eax
    mov eax, esp
    out 0x24, eax
    mov ax, cs
    movzx eax, ax
    out 0x25, eax
    mov r15, [rsp]
    mov esp, 0x8000
    cmp word ptr [r15], 0x0b0f      // ud2: two bytes
    je skip
    cmp byte ptr [r15], 0xf4
    je done
skip:
    add r15, 2
    jmp go
done:
    hlt

user:
    ud2
    mov ecx, ecx
    in al, 0x10                     // privileged
    cli                             // so are these two
    nop
    hlt

    .balign 8
gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cff3000000ffff, 0x00affb000000ffff
    .quad 0x0000890030000067, 0
gdtr:
    .word 7 * 8 - 1
    .quad gdt
idtr:
    .word 32 * 16 - 1
    .quad 0x4000
