// A triple fault.

#include "program.inc"

    say "PASS: as far as this\r\n"
    lidt [zeros]
    ud2

zeros:
    .quad 0
