// Virtual 8086 mode: 16-bit code in a 32-bit system, with I/O allowed, which comes back by an exception.

    .intel_syntax noprefix
    .code32

    lgdt [gdtr]
    ljmp 0x8, offset flushed
flushed:
    mov dword ptr [0x3004], 0x7000
    mov dword ptr [0x3008], 0x10
    mov word ptr [0x3066], 0x68
    mov eax, 0x18
    ltr ax
    mov eax, offset handler
    mov edi, 0x4000
    mov ecx, 32
gates:
    mov [edi], ax
    mov word ptr [edi + 2], 8
    mov word ptr [edi + 4], 0x8e00
    mov edx, eax
    shr edx, 16
    mov [edi + 6], dx
    add edi, 8
    dec ecx
    jnz gates
    lidt [idtr]
    // mov ax, 0x1234; mov ds, ax; mov al, [5]; ud2
    mov dword ptr [0x5000], 0x8e1234b8
    mov dword ptr [0x5004], 0x0005a0d8
    mov dword ptr [0x5008], 0x00000b0f
    mov byte ptr [0x12345], 0x77
    push 0                          // GS, FS, DS, ES
    push 0
    push 0
    push 0
    push 0x300                      // SS
    push 0x100                      // ESP
    push 0x23002                    // EFLAGS.VM, IOPL 3
    push 0x500                      // CS
    push 0
    iretd

handler:
    out 0x20, al                    // what was read
    mov eax, [esp]                  // EIP
    out 0x21, eax
    mov eax, [esp + 4]              // CS
    out 0x22, eax
    mov eax, [esp + 8]              // EFLAGS
    and eax, 0x23000
    out 0x23, eax
    mov eax, [esp + 12]             // ESP
    out 0x24, eax
    mov eax, [esp + 16]             // SS
    out 0x25, eax
    mov eax, [esp + 24]             // DS
    out 0x26, eax
    mov ax, ds                      // and now
    movzx eax, ax
    out 0x27, eax
    hlt

    .balign 8
gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x0000890030000067
gdtr:
    .word 4 * 8 - 1
    .long gdt
idtr:
    .word 32 * 8 - 1
    .long 0x4000
