/*
 * The instructions with which guests reach ports and devices' memory, decoded.
 *
 * The platform needs it to find the beginning of a store that KVM has already carried out, the
 * emulator to carry out what the platform did not. Intel SDM volume 2, chapter 2 and appendix A.
 */
#ifndef VMM_ARCH_INSTRUCTION_H
#define VMM_ARCH_INSTRUCTION_H

#include "linux.h"

enum { LONGEST = 15 };
enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI };
enum { ES, CS, SS, DS, FS, GS };

typedef enum {
    UNKNOWN,
    ALU, /* add or adc sbb and sub xor cmp: which one is in `alu` */
    TEST,
    MOVE,
    MOVE_ZERO,
    MOVE_SIGN,
    EXCHANGE,
    INCREMENT,
    DECREMENT,
    NOT,
    NEGATE,
    BIT_TEST, /* and set, reset or complement: bits 0 and 1 of `alu` */
    COMPARE_EXCHANGE,
    EXCHANGE_ADD,
    IN,
    OUT,
    /* From here on with SI or DI, and repeated. */
    MOVS,
    CMPS,
    STOS,
    LODS,
    SCAS,
    INS,
    OUTS,
} operation;

/* Where an operand is; the other one is always a register or an immediate. */
typedef enum { NOWHERE, MEMORY, REGISTER, IMMEDIATE } place;

typedef struct {
    u8 length;
    operation operation;
    u8 alu;
    u8 size;         /* of the memory or port operand: 1, 2, 4 or 8 bytes */
    u8 wide;         /* of the register, where it is not the same: movzx, movsx */
    u8 address_size; /* 2, 4 or 8 bytes */
    u8 rex, repeat, segment;
    place to, from; /* for ports: the operand that is none */
    u8 reg;         /* the register operand's number */
    u8 high;        /* it is AH, CH, DH or BH */
    i8 base, index, scale; /* of the memory operand; -1: none; base -2: RIP */
    i64 displacement;
    u64 immediate;
} instruction;

/* What of a processor the decoding and the addresses depend on. */
typedef struct {
    u64 gpr[16], rip, rflags;
    u64 bases[6]; /* ES CS SS DS FS GS */
    int bits;     /* 16, 32 or 64: the default sizes */
} machine;

/* Decode one instruction; 0 if the bytes are not one of those above, or not all of it. */
int decode(instruction *i, const u8 *bytes, u32 count, int bits);

/* The linear addresses of the operands. */
u64 memory_operand(const instruction *i, const machine *m);
u64 source_string(const instruction *i, const machine *m);
u64 destination_string(const instruction *i, const machine *m);
u64 linear(const machine *m, int segment, u64 offset);

/* A register's value of some bytes, and writing one as the processor does. */
u64 get_register(const machine *m, const instruction *i, int size);
void set_register(machine *m, const instruction *i, int size, u64 value);

/* Move a pointer or counter of address size by some amount. */
void advance(machine *m, const instruction *i, int reg, i64 amount);

static inline int is_string(const instruction *i) { return i->operation >= MOVS; }
static inline u64 mask(int size) { return size == 8 ? ~0ull : (1ull << size * 8) - 1; }

#endif
