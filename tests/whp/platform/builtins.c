/* What compilers call without being asked. */
#include "linux.h"

void *memcpy(void *to, const void *from, u64 size)
{
    copy(to, from, size);
    return to;
}

void *memset(void *at, int byte, u64 size)
{
    void *next = at;
    __asm__ volatile("rep stosb" : "+D"(next), "+c"(size) : "a"(byte) : "memory");
    return at;
}
