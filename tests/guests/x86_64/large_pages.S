// Pages of 2 MiB and 1 GiB of 64-bit code, and what the processor notes in their entries.

    .intel_syntax noprefix
    .code64

    mov dword ptr [0x6000], 0x00000083      // 2 MiB at 1 GiB: physical 0
    mov dword ptr [0x6004], 0
    mov dword ptr [0xa008], 0x6003
    mov dword ptr [0xa00c], 0
    mov rax, cr3
    mov cr3, rax
    mov ebx, 0x40000000
    mov ecx, [rbx + 0x3000]
    mov eax, [0x6000]
    out 0x10, eax                           // accessed
    mov dword ptr [rbx + 0x30000], 0xabcdef01
    mov eax, [0x6000]
    out 0x10, eax                           // and dirty
    mov eax, [0x30000]
    out 0x10, eax
    hlt
