// Cannot be run.

#include "program.inc"

    say "SKIP: nothing to try\r\n"
    finish 38
