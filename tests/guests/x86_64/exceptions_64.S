// Takes exceptions of 64-bit code, with error codes and without; the labels of those that fault are told
// through RBX, RCX, RBP and R8 before.

    .intel_syntax noprefix
    .code64
    .include "exceptions64.inc"

    make_idt
    lea rbx, [rip + undefined]
    lea rbp, [rip + divides]
    lea r8, [rip + not_canonical]
    lea r9, [rip + beyond]
    lea r10, [rip + reserved]
    mov eax, 1
    out 0x10, eax

    lea r15, [rip + 1f]
undefined:
    ud2
1:
    lea r15, [rip + 1f]
    xor ecx, ecx
    xor edx, edx
divides:
    div ecx
1:
    lea r15, [rip + 1f]
    movabs rax, 0x8000000000000000
not_canonical:
    mov eax, [rax]
1:
    lea r15, [rip + 1f]
    mov eax, 0x58 | 3
beyond:
    mov es, eax                     // beyond the end of the descriptor table
1:
    lea r15, [rip + 1f]
    mov rax, cr4
    bts rax, 15
reserved:
    mov cr4, rax
1:
    mov eax, 2
    out 0x10, eax
    hlt
    make_handlers
