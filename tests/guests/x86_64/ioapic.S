// Lines of the I/O APIC: one that is edge-triggered, one that is level-triggered and comes again until the
// host lowers it.

    .intel_syntax noprefix
    .code64
    .include "apic64.inc"

    .macro await count
1:  pause
    cmp ebx, \count
    jb 1b
    .endm

    xor ebx, ebx
    make_gate 0x51, edge
    make_gate 0x52, level
    enable_apic
    mov r13d, 0xfec00000
    mov dword ptr [r13], 0x10 + 2 * 5 // line 5: its lower half
    mov dword ptr [r13 + 0x10], 0x51
    mov dword ptr [r13], 0x11 + 2 * 5
    mov dword ptr [r13 + 0x10], 0
    mov dword ptr [r13], 0x10 + 2 * 10 // line 10: level-triggered
    mov dword ptr [r13 + 0x10], 0x8052
    mov dword ptr [r13], 0x11 + 2 * 10
    mov dword ptr [r13 + 0x10], 0
    mov eax, 1
    out 0x10, eax                   // the host raises the first
    sti
    await 1
    mov eax, 2
    out 0x10, eax                   // and lowers and raises it
    await 2
    mov eax, 3
    out 0x10, eax                   // the second
    await 4
    mov ecx, 5000                   // time enough for one that does not come
held:
    pause
    dec ecx
    jnz held
    mov eax, ebx
    out 0x10, eax
    cli
    hlt

edge:
    inc ebx
    mov eax, 0x51
    out 0x30, eax
    end_of_interrupt
    iretq
level:
    inc ebx
    mov eax, 0x52
    out 0x30, eax
    end_of_interrupt
    iretq
    make_idtr
