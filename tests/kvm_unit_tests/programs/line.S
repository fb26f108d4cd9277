// Raises and lowers interrupt line 5, and looks at the requests of the 8259.

#include "program.inc"

.macro request
    mov al, 0x0a                            // OCW3: the next read gives the request register
    out 0x20, al
    in al, 0x20
    and al, 0x20
    cmp al, bl
.endm

    mov dx, 0x2005
    xor bl, bl
    request
    check "no interrupt"
    mov dx, 0x2005
    mov al, 1
    out dx, al
    mov bl, 0x20
    request
    check "an interrupt"
    mov dx, 0x2005
    xor al, al
    out dx, al
    request
    check "it stays requested, since the rising edge is what counts"
    finish ebp
