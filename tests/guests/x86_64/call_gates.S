// 32-bit code in ring 3, which comes to ring 0 through a call gate with two parameters, and returns.

    .intel_syntax noprefix
    .code32

    lgdt [gdtr]
    ljmp 0x8, offset flushed
flushed:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov eax, offset gate
    mov [gdt + 0x30], ax
    shr eax, 16
    mov [gdt + 0x36], ax
    mov dword ptr [0x3004], 0x7000  // ESP0, SS0
    mov dword ptr [0x3008], 0x10
    mov eax, 0x28
    ltr ax
    push 0x23
    push 0x6000
    push 0x3002                     // I/O privileges for ring 3
    push 0x1b
    mov eax, offset user
    push eax
    iretd

user:
    mov eax, 0x23
    mov ds, eax
    push 0x11
    push 0x22
    lcall 0x33, 0
    mov ecx, esp
    out 0x20, eax                   // the result
    mov eax, ecx
    out 0x21, eax                   // parameters are gone
    mov ax, cs
    movzx eax, ax
    out 0x22, eax
    lcall 0x33, 1
gate:
    mov eax, [esp]
    cmp eax, offset gate
    je last
    mov eax, esp
    out 0x23, eax
    mov ax, cs
    movzx eax, ax
    out 0x24, eax
    mov eax, [esp + 4]              // CS of who calls
    out 0x25, eax
    mov eax, [esp + 8]
    out 0x26, eax
    mov eax, [esp + 16]             // ESP of who calls
    out 0x27, eax
    mov eax, [esp + 8]
    add eax, [esp + 12]
    .byte 0xca, 8, 0                // far return
last:
    hlt

    .balign 8
gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00cffb000000ffff, 0x00cff3000000ffff
    .quad 0x0000890030000067
    .quad 0x0000ec0200080000
gdtr:
    .word 7 * 8 - 1
    .long gdt
