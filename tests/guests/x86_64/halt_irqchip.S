// Says in memory that it is about to halt, and halts with interrupts off.

    .intel_syntax noprefix
    .code64

    lea rbx, [rip + halt]
    lea rcx, [rip + behind]
    cli
    mov byte ptr [0x3000], 1
halt:
    hlt
behind:
    out 0x10, al                    // nothing wakes it
