// Counts in memory until the host tells it to stop, then sends the count, asks, and sends the answer.

    .intel_syntax noprefix
    .code64

count:
    inc qword ptr [0x3000]
    cmp byte ptr [0x3008], 0
    je count
    mov eax, [0x3000]
    out 0x10, eax
    in eax, 0x11
    out 0x12, eax
    hlt
