// A PVH kernel that tells what it was told: numbers to port 0x10, text to port 0xe9.

    .intel_syntax noprefix
    .code32

    .globl start
start:
    mov esp, offset start + 0x800               // which is the kernel's own to set
    mov eax, cs:[ebx]                           // the magic number
    out 0x10, eax
    mov eax, [ebx + 12]                         // modules
    out 0x10, eax
    mov eax, [ebx + 48]                         // entries of the memory map
    out 0x10, eax
    mov esi, [ebx + 32]                         // the root pointer's signature
    mov eax, [esi]
    out 0x10, eax
    mov eax, cr0
    out 0x10, eax
    mov eax, cr4
    out 0x10, eax
    pushfd
    pop eax
    out 0x10, eax
    str eax                                     // of a task whose segment has room for no more
    movzx eax, ax
    out 0x10, eax

    mov esi, [ebx + 24]                         // command line
    call text
    mov edi, [ebx + 16]
    mov ecx, [ebx + 12]
module:                                         // its text, then its bytes, which end in zero here
    jecxz done
    mov esi, [edi + 16]
    call text
    mov esi, [edi]
    call text
    add edi, 32
    dec ecx
    jmp module
done:
    hlt

text:
    lodsb
    out 0xe9, al
    test al, al
    jnz text
    ret
