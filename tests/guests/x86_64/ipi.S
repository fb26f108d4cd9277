// Two vCPUs send each other interrupts: the first starts the second in real mode, which answers each with
// one of its own.

    .intel_syntax noprefix
    .code64
    .include "apic64.inc"

    make_gate 0x55, answer
    enable_apic
    xor ebx, ebx
    mov dword ptr [r14 + 0x310], 1 << 24
    mov dword ptr [r14 + 0x300], 0x4500
    mov ecx, 2000
pause_:
    pause
    dec ecx
    jnz pause_
    mov dword ptr [r14 + 0x310], 1 << 24
    mov dword ptr [r14 + 0x300], 0x4600 | 0x11
ready:
    pause
    cmp dword ptr [0x3000], 1
    jne ready
    sti
    mov ebp, 20
next:
    mov esi, ebx
    mov dword ptr [r14 + 0x310], 1 << 24
    mov dword ptr [r14 + 0x300], 0x4044
wait_:
    pause
    cmp ebx, esi
    je wait_
    dec ebp
    jnz next
    mov eax, ebx
    out 0x10, eax
    mov eax, [0x3004]
    out 0x10, eax
    cli
    hlt

answer:
    inc ebx
    end_of_interrupt
    iretq
    make_idtr

    .org 0x1000                     // 0x11000; here it is 0x1100:0
    .code16
secondary:
    xor ax, ax
    mov ds, ax
    mov ss, ax
    mov sp, 0x7000
    mov word ptr [4 * 0x44], 0x80
    mov word ptr [4 * 0x44 + 2], 0x1100
    // 4 GiB segments: the local APIC is above what real mode reaches.
    lgdt cs:[0x100]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    mov bx, 8
    mov fs, bx
    and al, 0xfe
    mov cr0, eax
    mov edi, 0xfee00000
    mov dword ptr fs:[edi + 0xf0], 0x1ff
    mov dword ptr [0x3000], 1
    sti
idle:
    pause
    jmp idle
    .org 0x1080                     // 0x1100:0x80
taken:
    inc dword ptr ds:[0x3004]
    mov dword ptr fs:[edi + 0xb0], 0
    mov dword ptr fs:[edi + 0x310], 0
    mov dword ptr fs:[edi + 0x300], 0x4055
    iret
    .org 0x1100                     // 0x1100:0x100
    .word 15
    .long 0x11108
    .org 0x1108
    .quad 0, 0x00cf93000000ffff
