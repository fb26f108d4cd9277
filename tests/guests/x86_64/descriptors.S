// Descriptor tables and what they say: SGDT, SIDT, SLDT, STR, LAR, LSL, VERR, VERW, a local table.

    .intel_syntax noprefix
    .code32

    mov eax, offset ldt
    mov [gdt + 0x2a], ax
    shr eax, 16
    mov [gdt + 0x2c], al
    mov dword ptr [0x20000], 0x01020304
    mov dword ptr [0x20ffc], 0x05060708
    lgdt [gdtr]
    lidt [idtr]
    sgdt [0x3000]
    movzx eax, word ptr [0x3000]
    out 0x10, eax
    mov eax, [0x3002]
    sub eax, offset gdt
    out 0x10, eax
    sidt [0x3000]
    mov eax, [0x3002]
    out 0x10, eax
    mov ax, 0x28
    lldt ax
    xor eax, eax
    sldt ax
    out 0x11, eax
    str ax
    out 0x11, eax

    mov ecx, 0x10
    lar eax, ecx                    // data
    and eax, 0xf0ff00               // others are undefined
    out 0x12, eax
    lsl eax, ecx
    out 0x12, eax
    mov ecx, 0x30
    lsl eax, ecx                    // a small one
    out 0x12, eax
    xor eax, eax
    mov ecx, 0x40
    lar eax, ecx                    // beyond the table
    setz al
    out 0x12, eax

    .macro verify instruction, selector
    mov eax, \selector
    \instruction ax
    setz al
    movzx eax, al
    out 0x13, eax
    .endm
    verify verr, 0x10
    verify verw, 0x10
    verify verr, 0x08
    verify verw, 0x08
    verify verr, 0x30
    verify verw, 0x30
    verify verr, 0

    mov eax, 0x4                    // the first of the local table
    mov fs, eax
    mov eax, fs:[0]
    out 0x14, eax
    mov dword ptr fs:[4], 0x12345678
    mov eax, [0x20004]
    out 0x14, eax
    mov eax, 0x30
    mov gs, eax
    mov eax, gs:[0xffc]
    out 0x14, eax
    mov eax, [gdt + 0x14]
    out 0x14, eax
    hlt

    .balign 8
gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0, 0
    .quad 0x0000820000000007        // the local table, whose base is filled in
    .quad 0x0000910200000fff        // read-only, 4 KiB from 0x20000 on
gdtr:
    .word 7 * 8 - 1
    .long gdt
idtr:
    .word 0x7ff
    .long 0x4000
ldt:
    .quad 0x0000930200000fff
