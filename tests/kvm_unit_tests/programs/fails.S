// Fails one of its checks.

#include "program.inc"

    cmp eax, eax
    check "what is so, after 0x12ab cycles"
    test esp, esp
    check "what is not so"
    finish 1
