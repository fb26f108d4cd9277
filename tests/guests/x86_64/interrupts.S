// Takes an interrupt of vector 0x20 and a non-maskable one, each by a handler that says so.

    .intel_syntax noprefix
    .code16

    mov word ptr [4 * 0x20], offset maskable
    mov word ptr [4 * 0x20 + 2], 0
    mov word ptr [4 * 2], offset non_maskable
    mov word ptr [4 * 2 + 2], 0
    mov sp, 0x8000
    mov al, 1
    out 0x10, al                    // nobody can interrupt yet
    mov al, 2
    sti
    mov ecx, 200000                 // there is time enough to, and more than once
next:
    dec ecx
    jnz next
    out 0x10, al
    cli
    mov al, 3
    out 0x10, al                    // a non-maskable one can
    hlt

maskable:
    push ax
    mov al, 0x20
    out 0x11, al
    pop ax
    iret

non_maskable:
    mov al, 0x80
    out 0x11, al
    iret
