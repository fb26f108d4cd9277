// Accesses across two pages: memory and memory, and the same through pages that are elsewhere.

    .intel_syntax noprefix
    .code64

    mov dword ptr [0x6000], 0x7003  // 1 GiB: a table with two pages in the reverse order
    mov dword ptr [0x6004], 0
    mov dword ptr [0x7000], 0x31003
    mov dword ptr [0x7004], 0
    mov dword ptr [0x7008], 0x30003
    mov dword ptr [0x700c], 0
    mov dword ptr [0xa008], 0x6003
    mov dword ptr [0xa00c], 0
    mov rax, cr3
    mov cr3, rax
    mov ebx, 0x40000ffd
    movabs rax, 0x1122334455667788
    mov [rbx], rax
    mov rax, [rbx]
    mov rdx, rax
    shr rdx, 32
    out 0x10, eax
    mov eax, edx
    out 0x10, eax
    mov eax, [0x31ffc]
    out 0x10, eax
    mov eax, [0x30000]
    out 0x10, eax
    mov eax, [0x30004]
    out 0x10, eax
    add dword ptr [rbx + 1], 1
    mov eax, [rbx + 1]
    out 0x10, eax
    hlt
