// XSAVE and AVX: enables them, computes with 256 bits, saves the state, spoils it and restores it.

    .intel_syntax noprefix
    .code64

    mov rax, cr4
    or eax, 0x40600                 // OSXSAVE, OSFXSR, OSXMMEXCPT
    mov cr4, rax
    xor ecx, ecx
    xgetbv
    out 0x10, eax
    mov eax, 7                      // x87, SSE, AVX
    xor edx, edx
    xsetbv
    xgetbv
    out 0x10, eax
    mov eax, 0xd
    xor ecx, ecx
    cpuid
    mov eax, ebx
    out 0x11, eax                   // bytes for what is enabled

    lea rbx, [rip + data]
    vmovupd ymm0, [rbx]
    vaddpd ymm1, ymm0, ymm0
    vmovupd [0x3000], ymm1
    vextractf128 xmm2, ymm1, 1
    vmovupd [0x3020], xmm2
    mov eax, 7
    xor edx, edx
    xsave [0x5000]
    mov eax, [0x5200]               // XSTATE_BV: SSE and AVX are in use
    and eax, 6
    out 0x12, eax
    vzeroall
    vmovupd [0x3040], ymm1
    mov eax, 7
    xrstor [0x5000]
    vmovupd [0x3060], ymm1
    hlt

    .balign 32
data:
    .double 1.0, 2.5, -3.0, 1e10
