// Executes, writes and reads, for somebody who watches. RBX has the address of an instruction.

    .intel_syntax noprefix
    .code64

    lea rbx, [rip + executed]
    mov eax, 1
    out 0x10, eax
    mov ecx, 2
again:
executed:
    nop
    dec ecx
    jnz again
    mov dword ptr [0x3000], 7       // watched
    mov eax, [0x3000]
    mov byte ptr [0x3004], 1        // not watched
    mov eax, [0x3010]               // watched for reads, too
    mov word ptr [0x3012], 2
    mov eax, 2
    out 0x10, eax
    hlt
