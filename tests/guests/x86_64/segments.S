// Real mode: sends what lies at ds:0, then loads ES and FS for the host to look at.

    .intel_syntax noprefix
    .code16

    mov eax, ds:[0]
    out 0x10, eax
    mov ax, 0x3000
    mov es, ax
    mov ax, 0x4567
    mov fs, ax
    hlt
