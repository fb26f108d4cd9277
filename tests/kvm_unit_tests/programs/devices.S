// Tries each of the test devices, with two CPUs and QEMU's 128 MiB of memory.

#include "program.inc"

    mov eax, 0x12345678
    out 0xe0, eax
    in al, 0xe1
    cmp al, 0x56
    check "one byte of four ports"
    mov ax, 0xabcd
    out 0xea, ax
    in eax, 0xe0
    cmp eax, 0xabcd5678
    check "the same ports, two bytes of them, eight further on"

    mov edi, 0xff000000
    mov dword ptr [edi + 16], 0xdeadbeef
    movzx eax, byte ptr [edi + 17]
    cmp eax, 0xbe
    check "one byte of MMIO"

    mov ax, 5
    mov dx, 0x510
    out dx, ax
    inc dx
    in al, dx
    cmp al, 2
    check "how many CPUs there are"
    mov ax, 3
    mov dx, 0x510
    out dx, ax
    inc dx
    mov ecx, 4
1:
    in al, dx
    ror eax, 8
    loop 1b
    cmp eax, 128 << 20
    check "how much memory there is"

    mov eax, offset page
    mov dword ptr [eax], 0x5a5a1234
    out 0xe4, eax
    cmp dword ptr [eax], 0x5a5a1234
    check "a page that the host forgot"

    finish ebp
