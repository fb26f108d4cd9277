// A fault whose handler cannot be reached becomes a double fault, on a stack of its own; a fault there
// ends the guest.

    .intel_syntax noprefix
    .code64

    lgdt [rip + gdtr]
    push 8
    lea rax, [rip + flushed]
    push rax
    .byte 0x48, 0xcb
flushed:
    mov dword ptr [0x3024], 0x7000  // IST1
    mov dword ptr [0x3028], 0
    mov eax, 0x18
    ltr ax
    mov edi, 0x4000
    xor eax, eax
    mov ecx, 128
    cld
    rep stosd
    lea rax, [rip + handler]
    mov [0x4080], ax                // #DF
    mov word ptr [0x4082], 8
    mov dword ptr [0x4084], 0x00018e01
    lidt [rip + idtr]
    mov rbx, rsp
    ud2                             // there is no gate for it

handler:
    mov eax, [rsp]                  // error code
    out 0x20, eax
    mov eax, esp
    out 0x21, eax
    mov eax, [rsp + 32]             // where the stack was
    sub eax, ebx
    out 0x22, eax
    mov dword ptr [0x4084], 0
    mov word ptr [0x4080], 0
    ud2

    .balign 8
gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x0000890030000067, 0
gdtr:
    .word 5 * 8 - 1
    .quad gdt
idtr:
    .word 32 * 16 - 1
    .quad 0x4000
