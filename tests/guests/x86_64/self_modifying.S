// Code that is changed before it runs, behind itself and on another page, also through another mapping.

    .intel_syntax noprefix
    .code64

    mov ecx, 3
again:
    lea rdi, [rip + value + 1]
    mov [rdi], cl                   // of an instruction behind
    jmp value                       // after which the processor has to see it
value:
    mov al, 0
    out 0x10, al
    dec ecx
    jnz again

    mov edi, 0x30000                // mov al, N; out 0x11, al; ret, on another page
    mov dword ptr [rdi], 0x11e600b0
    mov byte ptr [rdi + 4], 0xc3
    call rdi
    mov byte ptr [rdi + 1], 0x42
    call rdi
    // 0x40000000 is the same page, in a table of its own.
    mov dword ptr [0x6000], 0x7003
    mov dword ptr [0x6004], 0
    mov dword ptr [0x7000], 0x30003
    mov dword ptr [0x7004], 0
    mov dword ptr [0xa008], 0x6003
    mov rax, cr3
    mov cr3, rax
    mov ebx, 0x40000000
    mov byte ptr [rbx + 1], 0x43
    call rdi
    mov byte ptr [rdi + 1], 0x44
    call rbx
    hlt
