// Writes down all the state that it finds and then changes all of it, so that whoever comes next on
// this vCPU could tell.
//
// What it finds goes to a page of its own: general registers at 0, segments at 0x80, tables at 0xa0,
// RFLAGS at 0xc0, control and debug registers at 0x100, MSRs at 0x180, XSAVE's size at 0x1e0, x87 and
// SSE in FXSAVE's format at 0x200.

    .intel_syntax noprefix
    .code64

    .set found, 0x3000

    mov [found + 0x00], rax
    mov [found + 0x08], rbx
    mov [found + 0x10], rcx
    mov [found + 0x18], rdx
    mov [found + 0x20], rsi
    mov [found + 0x28], rdi
    mov [found + 0x30], rsp
    mov [found + 0x38], rbp
    mov [found + 0x40], r8
    mov [found + 0x48], r9
    mov [found + 0x50], r10
    mov [found + 0x58], r11
    mov [found + 0x60], r12
    mov [found + 0x68], r13
    mov [found + 0x70], r14
    mov [found + 0x78], r15
    pushfq
    pop rax
    mov [found + 0xc0], rax

    mov word ptr [found + 0x80], cs
    mov word ptr [found + 0x82], ds
    mov word ptr [found + 0x84], es
    mov word ptr [found + 0x86], fs
    mov word ptr [found + 0x88], gs
    mov word ptr [found + 0x8a], ss
    str word ptr [found + 0x8c]
    sldt word ptr [found + 0x8e]
    sgdt [found + 0xa0]
    sidt [found + 0xb0]

    mov rax, cr0
    mov [found + 0x100], rax
    mov rax, cr2
    mov [found + 0x108], rax
    mov rax, cr3
    mov [found + 0x110], rax
    mov rax, cr4
    mov [found + 0x118], rax
    mov rax, cr8
    mov [found + 0x120], rax
    mov rax, dr0
    mov [found + 0x128], rax
    mov rax, dr1
    mov [found + 0x130], rax
    mov rax, dr2
    mov [found + 0x138], rax
    mov rax, dr3
    mov [found + 0x140], rax
    mov rax, dr6
    mov [found + 0x148], rax
    mov rax, dr7
    mov [found + 0x150], rax

    lea rsi, [rip + msrs]           // each MSR is written down, then changed as the table says
    mov edi, found + 0x180
next_msr:
    mov ecx, [rsi]
    rdmsr
    mov [rdi], eax
    mov [rdi + 4], edx
    xor eax, [rsi + 4]
    xor edx, [rsi + 8]
    wrmsr
    add rsi, 12
    add rdi, 8
    cmp dword ptr [rsi], 0
    jne next_msr

    mov rax, cr4
    or eax, 0x200                   // OSFXSR, for SSE
    mov cr4, rax
    fxsave [found + 0x200]

    // XCR0 decides on the size of XSAVE's area, which leaf 0xd says; x87 and SSE count always. KVM
    // without hardware support executes XSETBV, but not XGETBV.
    mov dword ptr [found + 0x1e0], 576
    mov eax, 1
    cpuid
    test ecx, 1 << 26
    jz no_xsave
    mov eax, 0xd
    xor ecx, ecx
    cpuid
    mov [found + 0x1e0], ebx
    and eax, 7                      // x87, SSE and, where there is, AVX
    mov rbx, cr4
    or ebx, 0x40000                 // OSXSAVE
    mov cr4, rbx
    xor ecx, ecx
    xor edx, edx
    xsetbv
no_xsave:

    fxrstor [rip + image]

    mov rax, 0xdddddddddddd
    mov dr0, rax
    mov dr1, rax
    mov dr2, rax
    mov dr3, rax
    mov eax, 0xffff4ff1             // as if breakpoint 0 and a single step had been
    mov dr6, rax
    mov eax, 0x700                  // LE and GE, which enable nothing
    mov dr7, rax

    mov rax, 0x1234567
    mov cr2, rax
    mov eax, 5
    mov cr8, rax
    mov rax, cr4
    or eax, 0x84                    // TSD and PGE
    mov cr4, rax
    mov rax, cr0
    or eax, 0x10000                 // WP
    mov cr0, rax
    lgdt [rip + tables]
    lidt [rip + tables]
    xor eax, eax
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    lldt ax

    mov rax, 0xeeeeeeeeeeeeeeee
    mov rbx, rax
    mov rcx, rax
    mov rdx, rax
    mov rsi, rax
    mov rdi, rax
    mov rsp, rax
    mov rbp, rax
    mov r8, rax
    mov r9, rax
    mov r10, rax
    mov r11, rax
    mov r12, rax
    mov r13, rax
    mov r14, rax
    mov r15, rax
    std
    stc
    sti                             // one instruction more in which no interrupt comes
    hlt

    .balign 16
image:
    .word 0x0f7f, 0x3800            // FCW, FSW
    .byte 0xff, 0                   // no register is empty
    .word 0x1ff                     // the last opcode
    .quad 0x12345, 0x3456           // where it was and what it read
    .long 0x5f80, 0                 // MXCSR
    .fill 8 * 16 + 16 * 16, 1, 0x3f
    .space 6 * 16
tables:
    .word 0x7f
    .quad 0x12000
msrs:                               // index, and which bits to change
    .long 0xc0000080, 1, 0          // EFER: SCE
    .long 0xc0000081, 0, 0x180010   // STAR
    .long 0xc0000082, -1, 0x7fff    // LSTAR
    .long 0xc0000083, -1, 0x7fff    // CSTAR
    .long 0xc0000084, 0x700, 0      // FMASK
    .long 0xc0000100, 0x1234, 0     // FS_BASE
    .long 0xc0000101, 0x1234, 0     // GS_BASE
    .long 0xc0000102, -1, 0x7fff    // KERNEL_GS_BASE
    .long 0x174, 8, 0               // SYSENTER_CS
    .long 0x175, 0x1234, 0          // SYSENTER_ESP
    .long 0x176, 0x1234, 0          // SYSENTER_EIP
    .long 0x277, 1, 0               // PAT: entry 0 becomes 7, uncached
    .long 0
