/* What the emulator computes, and the flags that it leaves: Intel SDM volume 1, 3.4.3.1. */
#ifndef VMM_ARCH_ARITHMETIC_H
#define VMM_ARCH_ARITHMETIC_H

#include "instruction.h"

enum { CF = 1 << 0, PF = 1 << 2, AF = 1 << 4, ZF = 1 << 6, SF = 1 << 7, DF = 1 << 10, OF = 1 << 11 };
enum { ADD, OR, ADC, SBB, AND, SUB, XOR, CMP }; /* as opcodes have them: instruction.alu */

/* Give some flags new values; the others stay. */
void set_flags(machine *m, u64 which, u64 values);

/* The result of an operation on values of some bytes, and its flags. */
u64 compute(machine *m, int alu, u64 a, u64 b, int size);

/* A value of some bytes as one of eight, with or without its sign. */
u64 extend(u64 value, int from, int is_signed);

#endif
