// Adds and calls, for somebody who stops it at its instructions; has an INT3 of its own as well.
// The addresses of three instructions are in RBX, RBP and RSI.

    .intel_syntax noprefix
    .code64
    .include "exceptions64.inc"

    make_idt
    lea rbx, [rip + first]
    lea rbp, [rip + second]
    lea rsi, [rip + own]
    lea r15, [rip + behind]
    mov eax, 1
    out 0x10, eax
    mov ecx, 3
again:
first:
    add eax, 0x10                   // three bytes
    call function
    dec ecx
    jnz again
    out 0x10, eax
own:
    int3
behind:
    mov eax, 2
    out 0x10, eax
    hlt

function:
second:
    add eax, 0x1000
    ret
    make_handlers
