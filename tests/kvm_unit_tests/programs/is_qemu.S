// Passes in QEMU and nowhere else: looks for the part of fw_cfg that only QEMU has.

#include "program.inc"

    mov dx, 0x514
    in eax, dx
    cmp eax, 0x554d4551                     // "QEMU"
    check "a signature"
    finish ebp
