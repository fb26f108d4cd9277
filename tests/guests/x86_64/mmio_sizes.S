// Memory that is not there: every width, extended, exchanged, added to, and copied from and to memory.

    .intel_syntax noprefix
    .code64

    mov ebx, 0xd0000000
    mov al, [rbx]
    out 0x10, al
    mov ax, [rbx + 2]
    out 0x10, ax
    mov eax, [rbx + 4]
    out 0x10, eax
    mov rax, [rbx + 8]
    mov rdx, rax
    shr rdx, 32
    out 0x10, eax
    mov eax, edx
    out 0x10, eax
    movzx eax, byte ptr [rbx]
    out 0x10, eax
    movsx eax, byte ptr [rbx]
    out 0x10, eax
    movsx eax, word ptr [rbx + 2]
    out 0x10, eax

    mov byte ptr [rbx + 0x10], 0x11
    mov word ptr [rbx + 0x12], 0x2222
    mov dword ptr [rbx + 0x14], 0x33333333
    movabs rax, 0x4444444455555555
    mov [rbx + 0x18], rax
    mov qword ptr [rbx + 0x20], -2

    mov eax, 0x77
    xchg eax, [rbx + 0x30]          // a read and a write
    out 0x10, eax
    add dword ptr [rbx + 0x34], 5
    or byte ptr [rbx + 0x38], 0x80
    cmp dword ptr [rbx + 0x3c], 9
    sete al
    out 0x10, al
    test dword ptr [rbx + 0x3c], 8
    setnz al
    out 0x10, al

    cld
    lea rsi, [rbx + 0x40]           // from there to memory
    mov edi, 0x3000
    mov ecx, 3
    rep movsd
    mov esi, 0x3000                 // and back
    lea rdi, [rbx + 0x50]
    mov ecx, 3
    rep movsd
    hlt
