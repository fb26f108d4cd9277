// Hardware tasks of 32-bit code: a CALL to another task, and its return by IRET.

    .intel_syntax noprefix
    .code32

    lgdt [gdtr]
    ljmp 0x8, offset flushed
flushed:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    mov ss, eax
    mov eax, 0x18
    ltr ax
    mov dword ptr [0x3120], offset task // EIP
    mov dword ptr [0x3124], 2
    mov dword ptr [0x3128], 0x1111  // EAX
    mov dword ptr [0x3138], 0x6000  // ESP
    mov dword ptr [0x3148], 0x10    // ES, CS, SS, DS, FS, GS
    mov dword ptr [0x314c], 0x8
    mov dword ptr [0x3150], 0x10
    mov dword ptr [0x3154], 0x10
    mov dword ptr [0x3158], 0x10
    mov dword ptr [0x315c], 0x10
    mov ebx, 0x2222
    lcall 0x20, 0
    mov eax, ebx                    // still there
    out 0x10, eax
    str ax
    movzx eax, ax
    out 0x10, eax
    mov eax, [0x3128]               // what the other one had, kept in its segment
    out 0x10, eax
    mov eax, cr0
    out 0x11, eax
    hlt

task:
    out 0x20, eax
    pushfd
    pop eax
    out 0x21, eax                   // nested
    str ax
    movzx eax, ax
    out 0x22, eax
    mov eax, [0x3100]               // the link to the first task
    out 0x23, eax
    mov eax, 0x3333
    mov ebx, 0x4444
    iretd

    .balign 8
gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
    .quad 0x0000890030000067, 0x0000890031000067
gdtr:
    .word 5 * 8 - 1
    .long gdt
