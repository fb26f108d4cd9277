// Halts if the host gave it 1 in RBX; else it executes an undefined instruction without
// any interrupt descriptor table, so that neither it nor the double fault can be delivered.

    .intel_syntax noprefix
    .code64

    cmp rbx, 1
    je live
    ud2
live:
    hlt
