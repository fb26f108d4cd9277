// Real mode, protected mode, long mode, its compatibility mode, and back to real mode: by itself.

    .intel_syntax noprefix
    .code16
start:
    cli
    mov eax, cr0
    out 0x10, eax
    lgdt [gdtr]
    or al, 1
    mov cr0, eax
    ljmp 0x8, offset protected

    .code32
protected:
    mov ax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov esp, 0x8000
    mov eax, cr0
    out 0x11, eax
    // Page tables at 0x20000: the first 2 MiB.
    mov dword ptr [0x20000], 0x21003
    mov dword ptr [0x20004], 0
    mov dword ptr [0x21000], 0x22003
    mov dword ptr [0x21004], 0
    mov dword ptr [0x22000], 0x83
    mov dword ptr [0x22004], 0
    mov eax, 0x20000
    mov cr3, eax
    mov eax, cr4
    or eax, 0x20
    mov cr4, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x100
    wrmsr
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    rdmsr
    out 0x12, eax                   // active, but this is still 32-bit code
    ljmp 0x18, offset long_mode

    .code64
long_mode:
    mov rax, -1
    mov rbx, rax
    mov eax, eax                    // clears the upper half
    cmp rax, rbx
    setne al
    out 0x13, al
    push 0x8
    lea rax, [rip + compatible]
    push rax
    .byte 0x48, 0xcb

    .code32
compatible:
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax                    // leaves long mode
    mov ecx, 0xc0000080
    rdmsr
    out 0x14, eax
    and eax, 0xfffffeff
    wrmsr
    ljmp 0x20, offset code16

    .code16
code16:
    mov ax, 0x28
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov eax, cr0
    and al, 0xfe
    mov cr0, eax
    ljmp 0, offset real
real:
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov sp, 0x7000
    call near_
    mov eax, cr0
    out 0x15, eax
    hlt
near_:
    mov ax, cs
    out 0x16, ax
    ret

    .balign 8
gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00af9b000000ffff
    .quad 0x00009b000000ffff, 0x000093000000ffff
gdtr:
    .word 6 * 8 - 1
    .long gdt
