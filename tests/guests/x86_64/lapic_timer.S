// The local APIC's timer, once and then periodically; the guest halts until it fires.

    .intel_syntax noprefix
    .code64
    .include "apic64.inc"

    xor ebx, ebx
    make_gate 0x40, timer
    enable_apic
    mov dword ptr [r14 + 0x3e0], 0xb // divide by 1
    mov dword ptr [r14 + 0x320], 0x40
    mov dword ptr [r14 + 0x380], 50000
    sti
    hlt
    mov eax, ebx
    out 0x10, eax
    mov eax, [r14 + 0x390]          // it has stopped
    out 0x10, eax
    cli
    mov dword ptr [r14 + 0x320], 0x20040
    mov dword ptr [r14 + 0x380], 20000000
    sti
again:
    hlt
    cmp ebx, 5
    jb again
    mov dword ptr [r14 + 0x320], 0x10000
    mov eax, 5
    out 0x10, eax
    cli
    hlt

timer:
    inc ebx
    end_of_interrupt
    iretq
    make_idtr
