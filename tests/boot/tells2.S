// A Multiboot 2 kernel that tells what it was told: numbers to port 0x10, text to port 0xe9.

    .intel_syntax noprefix
    .code32

header:
    .long 0xe85250d6, 0, end - header, -(0xe85250d6 + end - header)
    .short 3, 0                                 // its entry
    .long 12, start, 0
    .short 0, 0
    .long 8
end:

    .globl start
start:
    mov esp, offset start + 0x800               // which is the kernel's own to set
    out 0x10, eax                               // the loader's magic number
    lea edi, [ebx + 8]                          // tags
tag:
    mov eax, [edi]
    test eax, eax
    jz done
    cmp eax, 2                                  // command line, loader's name
    jbe string
    cmp eax, 3
    je module
    cmp eax, 4
    je memory
    cmp eax, 6
    je memory_map
next:
    mov eax, [edi + 4]
    lea edi, [edi + eax + 7]
    and edi, ~7
    jmp tag

string:
    lea esi, [edi + 8]
    call text
    jmp next

module:                                         // its text, then its bytes, which end in zero here
    lea esi, [edi + 16]
    call text
    mov esi, [edi + 8]
    call text
    jmp next

memory:                                         // lower and upper
    mov eax, [edi + 8]
    out 0x10, eax
    mov eax, [edi + 12]
    out 0x10, eax
    jmp next

memory_map:                                     // the number of its entries
    mov eax, [edi + 4]
    sub eax, 16
    xor edx, edx
    mov ecx, [edi + 8]
    div ecx
    out 0x10, eax
    jmp next

done:
    hlt

text:
    lodsb
    out 0xe9, al
    test al, al
    jnz text
    ret
