// Does not end.

#include "program.inc"

    say "PASS: as far as this\r\n"
forever:
    jmp forever
