// Arithmetic, and the flags it sets: after each operation the result goes to port 0x10 and the flags
// (OF, SF, ZF, AF, PF, CF) to port 0x11, 32 bits wide.

    .intel_syntax noprefix
    .code64

    .macro tell mask = 0x8d5
    pushfq
    out 0x10, eax
    pop rax
    and eax, \mask
    out 0x11, eax
    .endm

    mov eax, 0x7fffffff
    add eax, 1
    tell
    mov eax, 0xffffffff
    add eax, 1
    tell
    stc
    mov eax, 0x0f
    adc eax, 0
    tell
    mov eax, 0
    sub eax, 1
    tell
    stc
    mov eax, 0x80000000
    sbb eax, 0
    tell
    mov eax, 0x80
    add al, 0x80
    tell
    mov eax, 0x12340000
    cmp ax, 1
    tell
    mov eax, 0x7f
    inc al
    tell
    mov eax, 0x80000000
    neg eax
    tell
    mov eax, 0x55
    xor eax, 0x55
    tell 0x8c5                      // AF is undefined
    mov eax, 0xf0f0
    and ax, 0x8ff0
    tell 0x8c5
    mov eax, 0x10000
    mov ecx, 0x10000
    mul ecx
    xchg eax, edx
    tell 0x801                      // the others are undefined
    mov eax, -3
    mov ecx, 5
    imul eax, ecx
    tell 0x801
    mov eax, 0x40000000
    imul eax, eax, 4
    tell 0x801
    mov edx, 1
    mov eax, 5
    mov ecx, 7
    div ecx
    out 0x10, eax
    mov eax, edx
    out 0x10, eax
    mov eax, -100
    cdq
    mov ecx, 7
    idiv ecx
    out 0x10, eax
    mov eax, edx
    out 0x10, eax
    mov eax, 0x80000001
    shl eax, 1
    tell 0x8c5
    mov eax, 0x80000001
    sar eax, 1
    tell 0x8c5
    mov eax, 0x80000001
    shr eax, 1
    tell 0x8c5
    stc
    mov eax, 0x40000000
    rcl eax, 1
    tell 0x801
    mov eax, 0x1
    ror eax, 1
    tell 0x801
    mov eax, 0x12345678
    mov edx, 0xabcdef01
    mov cl, 8
    shld eax, edx, cl
    out 0x10, eax
    mov eax, 0x12345678
    shrd eax, edx, 12
    out 0x10, eax
    mov rax, 0x8000000000000000
    mov rcx, rax
    add rax, rcx
    tell
    mov rax, -7
    cqo
    mov ecx, 2
    idiv rcx
    out 0x10, eax
    mov eax, 0x80
    cbw
    cwde
    out 0x10, eax
    hlt
