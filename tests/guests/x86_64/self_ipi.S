// Interrupts that the local APIC sends to its own processor: pending while they are disabled or their
// priority is too low, and taken by priority.

    .intel_syntax noprefix
    .code64
    .include "apic64.inc"

    xor ebx, ebx
    make_gate 0x51, low
    make_gate 0x61, high
    enable_apic
    mov dword ptr [r14 + 0x300], 0x40051 // to itself
    mov dword ptr [r14 + 0x300], 0x40061
    mov eax, [r14 + 0x220]          // IRR: vectors 0x40 to 0x5f
    out 0x10, eax
    mov eax, [r14 + 0x230]
    out 0x10, eax
    sti
both:
    pause
    cmp ebx, 2
    jne both
    cli
    mov rax, 6
    mov cr8, rax                    // nothing up to 0x6f
    mov dword ptr [r14 + 0x300], 0x40061
    sti
    mov ecx, 5000                   // time enough for one that does not come
held:
    pause
    dec ecx
    jnz held
    mov eax, [r14 + 0x80]           // the task's priority
    out 0x11, eax
    xor eax, eax
    mov cr8, rax
third:
    pause
    cmp ebx, 3
    jne third
    cli
    mov eax, 0xe
    out 0x10, eax
    hlt

low:
    inc ebx
    mov eax, 0x51
    out 0x30, eax
    end_of_interrupt
    iretq
high:
    inc ebx
    mov eax, 0x61
    out 0x30, eax
    end_of_interrupt
    iretq
    make_idtr
