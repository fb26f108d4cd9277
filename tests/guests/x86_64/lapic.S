// Sends its local APIC's id and part of its vector table, changes that and the task priority.

    .intel_syntax noprefix
    .code64

    mov ebx, 0xfee00000
    mov eax, [rbx + 0x20]           // id
    out 0x10, eax
    mov eax, [rbx + 0x350]          // LVT LINT0
    out 0x10, eax
    mov eax, [rbx + 0x360]          // LVT LINT1
    out 0x10, eax
    mov eax, [rbx + 0x370]          // LVT error, which the host changes
    out 0x10, eax
    mov dword ptr [rbx + 0x350], 0x10000
    mov dword ptr [rbx + 0x370], 0x10043
    mov dword ptr [rbx + 0x80], 0x50
    mov rax, cr8
    out 0x10, eax
