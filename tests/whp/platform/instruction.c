#include "instruction.h"

typedef struct {
    const u8 *bytes;
    u32 at, count;
    int short_of; /* bytes were missing */
} reader;

static u64 fetch(reader *r, int size)
{
    u64 value = 0;
    for (int i = 0; i < size; i++) {
        if (r->at >= r->count || r->at >= LONGEST) {
            r->short_of = 1;
            return 0;
        }
        value |= (u64)r->bytes[r->at++] << i * 8;
    }
    return value;
}

static i64 signed_of(u64 value, int size) { return (i64)(value << (64 - size * 8)) >> (64 - size * 8); }

/* ModRM, SIB and displacement: a register's number, or a memory operand. */
static int decode_modrm(instruction *i, reader *r, int bits, u8 *extension)
{
    u8 modrm = (u8)fetch(r, 1), mod = modrm >> 6, rm = modrm & 7;
    *extension = modrm >> 3 & 7;
    i->reg = *extension | (i->rex & 4) << 1;
    i->base = i->index = -1;
    if (mod == 3)
        return 0; /* between registers: never a device's */
    if (i->address_size == 2) {
        static const i8 BASES[] = {RBX, RBX, RBP, RBP, RSI, RDI, RBP, RBX};
        static const i8 INDICES[] = {RSI, RDI, RSI, RDI, -1, -1, -1, -1};
        int absolute = mod == 0 && rm == 6;
        i->base = absolute ? -1 : BASES[rm];
        i->index = absolute ? -1 : INDICES[rm];
        int size = absolute ? 2 : mod;
        i->displacement = size ? signed_of(fetch(r, size), size) : 0;
        if (i->segment == 0xff)
            i->segment = i->base == RBP ? SS : DS;
        return 1;
    }
    int size = mod == 1 ? 1 : mod == 2 ? 4 : 0;
    if (rm == 4) {
        u8 sib = (u8)fetch(r, 1);
        int index = (sib >> 3 & 7) | (i->rex & 2) << 2;
        i->index = index == RSP ? -1 : (i8)index;
        i->scale = sib >> 6;
        rm = sib & 7;
        if (rm == RBP && mod == 0)
            size = 4;
        else
            i->base = (i8)(rm | (i->rex & 1) << 3);
    } else if (rm == RBP && mod == 0) {
        size = 4;
        i->base = bits == 64 ? -2 : -1;
    } else
        i->base = (i8)(rm | (i->rex & 1) << 3);
    i->displacement = size ? signed_of(fetch(r, size), size) : 0;
    if (i->segment == 0xff)
        i->segment = i->base == RSP || i->base == RBP ? SS : DS;
    return 1;
}

/* Prefixes; returns the first byte of the opcode. */
static u8 decode_prefixes(instruction *i, reader *r, int bits, int *operand_prefix)
{
    int address_prefix = 0;
    u8 byte;
    for (i->rex = 0;; i->rex = 0) {
        byte = (u8)fetch(r, 1);
        static const u8 SEGMENTS[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65};
        int segment = 0;
        while (segment < 6 && SEGMENTS[segment] != byte)
            segment++;
        if (r->short_of)
            break;
        if (segment < 6)
            i->segment = bits == 64 && segment < FS ? i->segment : (u8)segment;
        else if (byte == 0x66)
            *operand_prefix = 1;
        else if (byte == 0x67)
            address_prefix = 1;
        else if (byte == 0xf2 || byte == 0xf3)
            i->repeat = byte;
        else if (byte != 0xf0) { /* lock: one processor at a time is here anyway */
            if (bits != 64 || byte >> 4 != 4)
                break;
            i->rex = byte;
            byte = (u8)fetch(r, 1);
            break;
        }
    }
    i->address_size = bits == 64 ? (address_prefix ? 4 : 8) : (bits == 32) != address_prefix ? 4 : 2;
    return byte;
}

static int string(instruction *i, operation operation, place to, place from)
{
    i->operation = operation;
    i->to = to;
    i->from = from;
    if (i->segment == 0xff)
        i->segment = DS;
    return 1;
}

static int between(instruction *i, operation operation, place to, place from)
{
    i->operation = operation;
    i->to = to;
    i->from = from;
    return 1;
}

/* Opcodes of one byte; full is the operand size that is not a byte. */
static int decode_short(instruction *i, reader *r, u8 opcode, int bits, int full)
{
    u8 extension;
    i->size = i->wide = (u8)(opcode & 1 ? full : 1);
    int immediate = i->size == 8 ? 4 : i->size;
    if (opcode < 0x40 && (opcode & 7) < 4) {
        i->alu = opcode >> 3;
        int load = opcode & 2;
        return decode_modrm(i, r, bits, &extension) &&
               between(i, ALU, load ? REGISTER : MEMORY, load ? MEMORY : REGISTER);
    }
    switch (opcode) {
    case 0x63: /* movsxd; something else outside of 64-bit code */
        i->size = 4;
        i->wide = (u8)full;
        return bits == 64 && decode_modrm(i, r, bits, &extension) &&
               between(i, MOVE_SIGN, REGISTER, MEMORY);
    case 0x6c:
    case 0x6d:
        i->size = (u8)(opcode & 1 ? (full == 8 ? 4 : full) : 1);
        return string(i, INS, MEMORY, NOWHERE);
    case 0x6e:
    case 0x6f:
        i->size = (u8)(opcode & 1 ? (full == 8 ? 4 : full) : 1);
        return string(i, OUTS, NOWHERE, MEMORY);
    case 0x80:
    case 0x81:
    case 0x83:
        if (!decode_modrm(i, r, bits, &extension))
            return 0;
        immediate = opcode == 0x81 ? immediate : 1;
        i->immediate = (u64)signed_of(fetch(r, immediate), immediate);
        i->alu = extension;
        return between(i, ALU, MEMORY, IMMEDIATE);
    case 0x84:
    case 0x85:
        return decode_modrm(i, r, bits, &extension) && between(i, TEST, MEMORY, REGISTER);
    case 0x86:
    case 0x87:
        return decode_modrm(i, r, bits, &extension) && between(i, EXCHANGE, MEMORY, REGISTER);
    case 0x88:
    case 0x89:
        return decode_modrm(i, r, bits, &extension) && between(i, MOVE, MEMORY, REGISTER);
    case 0x8a:
    case 0x8b:
        return decode_modrm(i, r, bits, &extension) && between(i, MOVE, REGISTER, MEMORY);
    case 0xa0 ... 0xa3: /* with the accumulator, at an address that follows */
        i->reg = RAX;
        i->base = i->index = -1;
        i->displacement = (i64)fetch(r, i->address_size);
        if (i->segment == 0xff)
            i->segment = DS;
        return between(i, MOVE, opcode & 2 ? MEMORY : REGISTER, opcode & 2 ? REGISTER : MEMORY);
    case 0xa4:
    case 0xa5:
        return string(i, MOVS, MEMORY, MEMORY);
    case 0xa6:
    case 0xa7:
        return string(i, CMPS, MEMORY, MEMORY);
    case 0xaa:
    case 0xab:
        return string(i, STOS, MEMORY, REGISTER);
    case 0xac:
    case 0xad:
        return string(i, LODS, REGISTER, MEMORY);
    case 0xae:
    case 0xaf:
        return string(i, SCAS, MEMORY, REGISTER);
    case 0xc6:
    case 0xc7:
        if (!decode_modrm(i, r, bits, &extension) || extension)
            return 0;
        i->immediate = (u64)signed_of(fetch(r, immediate), immediate);
        return between(i, MOVE, MEMORY, IMMEDIATE);
    case 0xe4 ... 0xe7:
    case 0xec ... 0xef:
        i->size = (u8)(opcode & 1 ? (full == 8 ? 4 : full) : 1);
        i->reg = RAX;
        i->immediate = opcode < 0xe8 ? fetch(r, 1) : 0x10000; /* the port, or that it is in DX */
        return opcode & 2 ? between(i, OUT, NOWHERE, REGISTER) : between(i, IN, REGISTER, NOWHERE);
    case 0xf6:
    case 0xf7:
        if (!decode_modrm(i, r, bits, &extension))
            return 0;
        if (extension < 2) {
            i->immediate = (u64)signed_of(fetch(r, immediate), immediate);
            return between(i, TEST, MEMORY, IMMEDIATE);
        }
        return extension < 4 && between(i, extension == 2 ? NOT : NEGATE, MEMORY, NOWHERE);
    case 0xfe:
    case 0xff:
        if (!decode_modrm(i, r, bits, &extension) || extension > 1)
            return 0;
        return between(i, extension ? DECREMENT : INCREMENT, MEMORY, NOWHERE);
    }
    return 0;
}

/* Opcodes that begin with 0f. */
static int decode_long(instruction *i, reader *r, u8 opcode, int bits, int full)
{
    u8 extension;
    if (!decode_modrm(i, r, bits, &extension))
        return 0;
    i->size = i->wide = (u8)full;
    switch (opcode) {
    case 0xa3:
    case 0xab:
    case 0xb3:
    case 0xbb:
        i->alu = opcode >> 3 & 3;
        return between(i, BIT_TEST, MEMORY, REGISTER);
    case 0xba:
        i->immediate = fetch(r, 1);
        i->alu = extension & 3;
        return extension > 3 && between(i, BIT_TEST, MEMORY, IMMEDIATE);
    case 0xb0:
    case 0xb1:
        i->size = (u8)(opcode & 1 ? full : 1);
        return between(i, COMPARE_EXCHANGE, MEMORY, REGISTER);
    case 0xc0:
    case 0xc1:
        i->size = (u8)(opcode & 1 ? full : 1);
        return between(i, EXCHANGE_ADD, MEMORY, REGISTER);
    case 0xb6:
    case 0xb7:
    case 0xbe:
    case 0xbf:
        i->size = opcode & 1 ? 2 : 1;
        return between(i, opcode & 8 ? MOVE_SIGN : MOVE_ZERO, REGISTER, MEMORY);
    case 0xc3: /* movnti */
        return full != 2 && between(i, MOVE, MEMORY, REGISTER);
    }
    return 0;
}

int decode(instruction *i, const u8 *bytes, u32 count, int bits)
{
    reader r = {bytes, 0, count, 0};
    int operand_prefix = 0;
    *i = (instruction){.segment = 0xff};
    u8 opcode = decode_prefixes(i, &r, bits, &operand_prefix);
    int full = i->rex & 8 ? 8 : (bits == 16) != operand_prefix ? 2 : 4;
    int known = opcode == 0x0f ? decode_long(i, &r, (u8)fetch(&r, 1), bits, full)
                               : decode_short(i, &r, opcode, bits, full);
    if (!known || r.short_of)
        return 0;
    /* Without REX, byte registers 4 to 7 are the second bytes of the first four. */
    int byte_register = i->wide == 1 || (i->size == 1 && i->operation != MOVE_ZERO &&
                                         i->operation != MOVE_SIGN);
    if (byte_register && !i->rex && i->reg > 3 && !is_string(i)) {
        i->high = 1;
        i->reg -= 4;
    }
    i->length = (u8)r.at;
    return i->length;
}

u64 linear(const machine *m, int segment, u64 offset)
{
    if (m->bits == 64)
        return offset + (segment >= FS ? m->bases[segment] : 0);
    return (offset + m->bases[segment]) & 0xffffffff;
}

u64 memory_operand(const instruction *i, const machine *m)
{
    u64 offset = (u64)i->displacement;
    if (i->base == -2)
        offset += m->rip + i->length;
    else if (i->base >= 0)
        offset += m->gpr[i->base];
    if (i->index >= 0)
        offset += m->gpr[i->index] << i->scale;
    if (i->operation == BIT_TEST && i->from == REGISTER) {
        /* The register counts bits from the operand on, in either direction. */
        i64 bit = signed_of(m->gpr[i->reg], i->size);
        offset += (u64)((bit >> (i->size == 8 ? 6 : i->size == 4 ? 5 : 4)) * i->size);
    }
    return linear(m, i->segment, offset & mask(i->address_size));
}

u64 source_string(const instruction *i, const machine *m)
{
    return linear(m, i->segment, m->gpr[RSI] & mask(i->address_size));
}

u64 destination_string(const instruction *i, const machine *m)
{
    return linear(m, ES, m->gpr[RDI] & mask(i->address_size));
}

u64 get_register(const machine *m, const instruction *i, int size)
{
    return m->gpr[i->reg] >> (i->high ? 8 : 0) & mask(size);
}

void set_register(machine *m, const instruction *i, int size, u64 value)
{
    int shift = i->high ? 8 : 0;
    if (size >= 4) /* the upper half is cleared with a write of the lower */
        m->gpr[i->reg] = value & mask(size);
    else
        m->gpr[i->reg] =
            (m->gpr[i->reg] & ~(mask(size) << shift)) | (value & mask(size)) << shift;
}

void advance(machine *m, const instruction *i, int reg, i64 amount)
{
    u64 moved = (m->gpr[reg] + (u64)amount) & mask(i->address_size);
    m->gpr[reg] = i->address_size == 2 ? (m->gpr[reg] & ~mask(2)) | moved : moved;
}
