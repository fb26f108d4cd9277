// Selectors of segments that cannot be loaded, in 32-bit code: not present, of another type, beyond the table.

    .intel_syntax noprefix
    .code32

    lgdt [gdtr]
    ljmp 0x8, offset flushed
flushed:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov eax, offset general
    mov edi, 0x4068
    call gate
    mov eax, offset stack
    mov edi, 0x4060
    call gate
    mov eax, offset missing
    mov edi, 0x4058
    call gate
    lidt [idtr]
    mov ebp, offset next5
    mov eax, 0x30                   // not present
    mov es, eax
next5:
    mov ebp, offset next6
    mov eax, 0x30
    mov ss, eax
next6:
    mov ebp, offset next7
    mov eax, 0x8                    // code is not to be written, so not for SS
    mov ss, eax
next7:
    mov ebp, offset next8
    mov eax, 0x1003
    mov ds, eax
next8:
    xor eax, eax
    mov gs, eax                     // a null selector can be loaded
    hlt

general:
    mov al, 13
    jmp report
stack:
    mov al, 12
    jmp report
missing:
    mov al, 11
report:
    out 0x20, al
    pop eax
    out 0x21, eax
    mov [esp], ebp
    iretd

gate:
    mov [edi], ax
    mov word ptr [edi + 2], 8
    mov word ptr [edi + 4], 0x8e00
    shr eax, 16
    mov [edi + 6], ax
    ret

    .balign 8
gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0, 0, 0
    .quad 0x0040130030000fff        // a segment that is not present
gdtr:
    .word 7 * 8 - 1
    .long gdt
idtr:
    .word 32 * 8 - 1
    .long 0x4000
