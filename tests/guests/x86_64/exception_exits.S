// Raises #UD twice, and #PF by a read and a write at RBX; the instructions' addresses are in RBP, R8 and R9.

    .intel_syntax noprefix
    .code64
    .include "exceptions64.inc"

    make_idt
    lea rbp, [rip + undefined]
    lea r8, [rip + loads]
    lea r9, [rip + stores]
    movabs rbx, 0x7fff00001000
    mov eax, 1
    out 0x10, eax
    lea r15, [rip + 1f]
    mov ecx, 2
undefined:
    ud2
1:
    loop undefined

    mov eax, 2
    out 0x10, eax
    lea r15, [rip + 1f]
loads:
    mov eax, [rbx]
1:
    mov rdx, cr2
    mov eax, edx
    out 0x11, eax
    lea r15, [rip + 1f]
stores:
    mov [rbx + 8], eax
1:
    hlt
    make_handlers
