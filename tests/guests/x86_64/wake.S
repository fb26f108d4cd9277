// Halts, and goes on after each interrupt that the host injects; without an irqchip.

    .intel_syntax noprefix
    .code16

    mov word ptr [4 * 0x30], offset handler
    mov word ptr [4 * 0x30 + 2], 0
    mov word ptr [4 * 2], offset non_maskable
    mov word ptr [4 * 2 + 2], 0
    mov sp, 0x8000
    sti
    hlt
    out 0x10, al
    cli
    hlt                             // only an NMI wakes it
    mov al, 3
    out 0x10, al
    hlt

handler:
    mov al, 1
    out 0x11, al
    iret
non_maskable:
    mov al, 2
    out 0x11, al
    iret
