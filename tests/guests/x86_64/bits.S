// Single bits, exchanges and conditions; results go to port 0x10, 32 bits wide.

    .intel_syntax noprefix
    .code64

    .macro tell
    out 0x10, eax
    .endm

    mov ecx, 0x00f00100
    bsf eax, ecx
    tell
    bsr eax, ecx
    tell
    mov eax, 0x10
    bt eax, 4
    setc al
    movzx eax, al
    tell
    mov eax, 0
    bts eax, 31
    tell
    btr eax, 31
    tell
    btc eax, 3
    tell
    mov qword ptr [0x3000], 0       // a bit beyond the operand, in memory
    mov ecx, 37
    bts dword ptr [0x3000], ecx
    mov eax, [0x3004]
    tell
    mov ecx, -1
    mov dword ptr [0x2ffc], 0
    bts dword ptr [0x3000], ecx
    mov eax, [0x2ffc]
    tell

    mov eax, 5
    mov ecx, 7
    xadd ecx, eax
    tell
    mov eax, ecx
    tell
    mov dword ptr [0x3000], 0x11
    mov eax, 0x11
    mov ecx, 0x22
    lock cmpxchg [0x3000], ecx
    setz dl
    mov eax, [0x3000]
    tell
    movzx eax, dl
    tell
    mov eax, 0x33
    lock cmpxchg [0x3000], ecx      // another value: it is loaded
    tell
    mov dword ptr [0x3000], 1
    mov dword ptr [0x3004], 2
    mov eax, 1
    mov edx, 2
    mov ebx, 3
    mov ecx, 4
    lock cmpxchg8b [0x3000]
    mov eax, [0x3004]
    tell
    mov eax, 9
    lock xadd [0x3000], eax
    tell
    mov eax, [0x3000]
    tell
    xchg eax, [0x3004]
    tell

    mov eax, 1
    cmp eax, 2
    mov ecx, 0xc0c0
    cmovl eax, ecx
    tell
    cmp eax, 2
    mov ecx, 0xd0d0
    cmovb eax, ecx
    tell
    mov eax, 0x11223344
    bswap eax
    tell
    mov ebx, 0x3000
    mov byte ptr [0x3042], 0x5a
    mov al, 0x42
    xlatb
    movzx eax, al
    tell
    mov eax, 0x80ff
    movsx eax, al
    tell
    mov ecx, 3
    xor eax, eax
1:  inc eax
    loop 1b
    tell
    hlt
