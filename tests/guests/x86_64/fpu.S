// Sends the x87 control word, MXCSR and XMM1 as it finds them, twice; then loads other x87 and SSE
// state from an image of its own.
//
// MXCSR and XMM1 are read out of FXSAVE's image: KVM without hardware support executes FXSAVE and
// FXRSTOR, but neither STMXCSR nor most other instructions of SSE.

    .intel_syntax noprefix
    .code64

    .set saved, 0x3000

    mov rax, cr4
    or eax, 0x200                   // OSFXSR: without it there is no SSE
    mov cr4, rax
    call report
    call report
    fxrstor [rip + image]
    hlt

report:
    fnstcw word ptr [saved]
    mov ax, [saved]
    out 0x10, ax
    fxsave [saved]
    mov eax, [saved + 24]
    out 0x11, eax
    mov esi, saved + 160 + 16
    mov edx, 0x12
    mov ecx, 4
    cld
    rep outsd
    ret

    .balign 16
image:
    .word 0x0f7f                    // FCW: rounds towards zero
    .word 0x3800                    // FSW: the stack's top is register 7
    .byte 0x80, 0                   // which is the only one in use
    .word 0
    .quad 0, 0
    .long 0x5f80, 0                 // MXCSR: rounds up
    .byte 0x35, 0xc2, 0x68, 0x21, 0xa2, 0xda, 0x0f, 0xc9, 0x00, 0x40    // ST0: pi
    .space 6 + 7 * 16
    .fill 15 * 16, 1, 0             // XMM0 to XMM14
    .fill 16, 1, 0xa5
    .space 6 * 16
