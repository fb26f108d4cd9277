#include "arithmetic.h"

void set_flags(machine *m, u64 which, u64 values)
{
    m->rflags = (m->rflags & ~which) | (values & which);
}

static u64 result_flags(u64 result, int size)
{
    u64 parity = result ^ result >> 4;
    parity ^= parity >> 2;
    parity ^= parity >> 1;
    return (result & mask(size) ? 0 : ZF) | (result >> (size * 8 - 1) & 1 ? SF : 0) |
           (parity & 1 ? 0 : PF);
}

u64 compute(machine *m, int alu, u64 a, u64 b, int size)
{
    u64 carry = (alu == ADC || alu == SBB) && m->rflags & CF, top = 1ull << (size * 8 - 1);
    u64 result, flags;
    a &= mask(size);
    b &= mask(size);
    switch (alu) {
    case ADD:
    case ADC:
        result = (a + b + carry) & mask(size);
        flags = (result < a || (carry && result == a) ? CF : 0) |
                ((a ^ result) & (b ^ result) & top ? OF : 0);
        break;
    case SBB:
    case SUB:
    case CMP:
        result = (a - b - carry) & mask(size);
        flags = (a < b || (carry && a == b) ? CF : 0) | ((a ^ b) & (a ^ result) & top ? OF : 0);
        break;
    default:
        result = alu == OR ? a | b : alu == AND ? a & b : a ^ b;
        flags = 0;
        set_flags(m, CF | OF | AF | ZF | SF | PF, result_flags(result, size));
        return result;
    }
    flags |= result_flags(result, size) | ((a ^ b ^ result) & AF);
    set_flags(m, CF | OF | AF | ZF | SF | PF, flags);
    return result;
}

u64 extend(u64 value, int from, int is_signed)
{
    int unused = 64 - from * 8;
    return is_signed ? (u64)((i64)(value << unused) >> unused) : value & mask(from);
}
