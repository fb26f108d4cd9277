// 32-bit code: writes to memory at 2 MiB, reads it back, says which segments it was given, loads one
// of them anew from the descriptor table, and calls through the stack.

    .intel_syntax noprefix
    .code32

    mov edi, 0x200000
    mov dword ptr [edi], 0x89abcdef
    mov eax, [edi]
    out 0x10, eax

    mov eax, 0x11111111             // and 64 bytes, 64 KiB behind it
    lea edi, [edi + 0x10000]
    mov ecx, 16
    cld
    rep stosd

    mov ax, cs
    out 0x10, ax
    mov ax, ds
    out 0x10, ax
    mov ax, ss
    out 0x10, ax
    str ax
    out 0x10, ax

    mov ax, 0x18                    // from the descriptor table in memory this time
    mov ds, ax
    mov es, ax
    call function
    out 0x10, eax
    hlt

function:
    mov eax, cr0
    ret
