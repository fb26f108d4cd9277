// A Multiboot kernel that tells what it was told: numbers to port 0x10, text to port 0xe9.

    .intel_syntax noprefix
    .code32

    .long 0x1badb002, 3, -(0x1badb002 + 3)     // wants aligned modules, and to know its memory

    .globl start
start:                                          // 12 bytes behind the beginning
    mov esp, offset bss + 0x200                 // which is the kernel's own to set
    out 0x10, eax                               // the loader's magic number
    mov eax, [ebx]                              // flags
    out 0x10, eax
    mov eax, [ebx + 4]                          // lower and upper memory
    out 0x10, eax
    mov eax, [ebx + 8]
    out 0x10, eax

    mov esi, [ebx + 16]                         // command line
    call text
    mov esi, [ebx + 64]                         // the loader's name
    call text

    mov edi, [ebx + 48]                         // memory map
    mov ecx, [ebx + 44]
    add ecx, edi
entry:
    cmp edi, ecx
    jae modules
    mov eax, [edi + 4]
    out 0x10, eax
    mov eax, [edi + 12]
    out 0x10, eax
    mov eax, [edi + 20]
    out 0x10, eax
    mov eax, [edi]
    lea edi, [edi + eax + 4]
    jmp entry

modules:
    mov edi, [ebx + 24]
    mov ecx, [ebx + 20]
module:
    jecxz end
    mov esi, [edi + 8]                          // its text, then its bytes, which end in zero here
    call text
    mov esi, [edi]
    call text
    add edi, 16
    dec ecx
    jmp module

end:
    mov eax, [bss]                              // was full of something else
    out 0x10, eax
    str ax                                      // segments are there: the descriptor table is not
    out 0x10, eax
    hlt

text:
    lodsb
    out 0xe9, al
    test al, al
    jnz text
    ret

    .set bss, . + 64
