// Says what it was told: its command line, and the first line of the module with the environment.

#include "program.inc"

    say "PASS: told "
    mov esi, [ebx + 16]
    call print
    say "\r\n"
    mov eax, [ebx + 24]
    mov esi, [eax]
    mov dx, 0x3f8
1:
    lodsb
    out dx, al
    cmp al, 10
    jne 1b
    finish 0
