/*
 * WinHvEmulation: carries out the instruction of an exit, with the caller's memory and ports.
 *
 * Everything goes through the caller's five callbacks, and registers are set once, at the end: an
 * emulation that is given up leaves the processor as it was. WHvEmulatorTryEmulation.md.
 */
#include <windows.h>
#include <winhvplatform.h>

#include <winhvemulation.h>

#include "hresult.h"
#include "arithmetic.h"

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

enum { PAGE = 4096, DIRECTION_READ = 0, DIRECTION_WRITE = 1 };
static const u64 GENUINE = 0x726f74616c756d65ull;

typedef struct {
    u64 genuine; /* a handle that was not created here is refused */
    WHV_EMULATOR_CALLBACKS callbacks;
} emulator;

/* One emulation. */
typedef struct {
    const WHV_EMULATOR_CALLBACKS *call;
    void *context;
    WHV_EMULATOR_STATUS *status;
    machine m;
    int user;
    int faulted; /* the guest is to get a page fault instead of the instruction's effect */
    u64 fault_address;
    u32 fault_code;
} emulation;

static int is_genuine(const emulator *e) { return e && e->genuine == GENUINE; }

EXPORT HRESULT WINAPI WHvEmulatorCreateEmulator(const WHV_EMULATOR_CALLBACKS *callbacks,
                                                WHV_EMULATOR_HANDLE *handle)
{
    if (!callbacks || !handle || callbacks->Size != sizeof *callbacks || callbacks->Reserved ||
        !callbacks->WHvEmulatorIoPortCallback || !callbacks->WHvEmulatorMemoryCallback ||
        !callbacks->WHvEmulatorGetVirtualProcessorRegisters ||
        !callbacks->WHvEmulatorSetVirtualProcessorRegisters ||
        !callbacks->WHvEmulatorTranslateGvaPage)
        return E_INVALIDARG;
    emulator *e = map_pages(sizeof *e, -1);
    if (!e)
        return E_OUTOFMEMORY;
    *e = (emulator){GENUINE, *callbacks};
    *handle = e;
    return S_OK;
}

EXPORT HRESULT WINAPI WHvEmulatorDestroyEmulator(WHV_EMULATOR_HANDLE handle)
{
    if (!is_genuine(handle))
        return E_INVALIDARG;
    unmap_pages(handle, sizeof(emulator));
    return S_OK;
}

/* Read or write at a linear address: each page is translated, and each access is one of at most 8. */
static int access(emulation *e, u64 address, void *data, u32 size, int write, u32 validate)
{
    u8 *next = data;
    while (size) {
        WHV_TRANSLATE_GVA_RESULT_CODE result = WHvTranslateGvaResultSuccess;
        WHV_GUEST_PHYSICAL_ADDRESS page = 0;
        u64 in_page = address % PAGE;
        WHV_EMULATOR_MEMORY_ACCESS_INFO info = {0};
        if (e->call->WHvEmulatorTranslateGvaPage(e->context, address - in_page, validate, &result,
                                                 &page)) {
            e->status->TranslateGvaPageCallbackFailed = 1;
            return 0;
        }
        switch (result) {
        case WHvTranslateGvaResultPageNotPresent:
        case WHvTranslateGvaResultPrivilegeViolation:
        case WHvTranslateGvaResultInvalidPageTableFlags:
            e->faulted = 1;
            e->fault_address = address;
            e->fault_code = (result != WHvTranslateGvaResultPageNotPresent) | write << 1 |
                            e->user << 2 |
                            (result == WHvTranslateGvaResultInvalidPageTableFlags) << 3;
            return 0;
        default: /* what is behind the address is the memory callback's affair */
            break;
        }
        if (page % PAGE) {
            e->status->TranslateGvaPageCallbackGpaIsNotAligned = 1;
            return 0;
        }
        info.GpaAddress = page + in_page;
        info.Direction = write ? DIRECTION_WRITE : DIRECTION_READ;
        info.AccessSize = (u8)smaller(smaller(size, PAGE - in_page), sizeof info.Data);
        if (write)
            copy(info.Data, next, info.AccessSize);
        if (e->call->WHvEmulatorMemoryCallback(e->context, &info)) {
            e->status->MemoryCallbackFailed = 1;
            return 0;
        }
        if (!write)
            copy(next, info.Data, info.AccessSize);
        next += info.AccessSize;
        address += info.AccessSize;
        size -= info.AccessSize;
    }
    return 1;
}

static int load(emulation *e, u64 address, u64 *value, u32 size)
{
    *value = 0;
    return access(e, address, value, size, 0, WHvTranslateGvaFlagValidateRead);
}

static int store(emulation *e, u64 address, u64 value, u32 size)
{
    return access(e, address, &value, size, 1,
                  WHvTranslateGvaFlagValidateRead | WHvTranslateGvaFlagValidateWrite |
                      WHvTranslateGvaFlagSetPageTableBits);
}

static int port(emulation *e, u16 number, u64 *value, u32 size, int write)
{
    WHV_EMULATOR_IO_ACCESS_INFO info = {
        .Direction = write ? DIRECTION_WRITE : DIRECTION_READ,
        .Port = number,
        .AccessSize = (u16)size,
        .Data = write ? (u32)(*value & mask((int)size)) : 0,
    };
    if (e->call->WHvEmulatorIoPortCallback(e->context, &info)) {
        e->status->IoPortCallbackFailed = 1;
        return 0;
    }
    if (!write)
        *value = info.Data & mask((int)size);
    return 1;
}

/* An instruction that reads its memory operand, computes, and perhaps writes it again. */
static int modify(emulation *e, const instruction *i)
{
    machine *m = &e->m;
    int size = i->size, write = 1;
    u64 at = memory_operand(i, m), old, new;
    u64 other = i->from == IMMEDIATE ? i->immediate : get_register(m, i, size);
    if (!load(e, at, &old, (u32)size))
        return 0;
    machine before = *m;
    switch (i->operation) {
    case ALU:
        new = compute(m, i->alu, old, other, size);
        write = i->alu != CMP;
        break;
    case TEST:
        new = compute(m, AND, old, other, size);
        write = 0;
        break;
    case INCREMENT:
    case DECREMENT:
        new = compute(m, i->operation == INCREMENT ? ADD : SUB, old, 1, size);
        set_flags(m, CF, before.rflags);
        break;
    case NOT:
        new = ~old;
        break;
    case NEGATE:
        new = compute(m, SUB, 0, old, size);
        break;
    case BIT_TEST: { /* alu: 0 only tests, 1 sets, 2 resets, 3 complements */
        u64 bit = 1ull << (other & (u64)(size * 8 - 1));
        set_flags(m, CF, old & bit ? CF : 0);
        new = i->alu == 1 ? old | bit : i->alu == 2 ? old & ~bit : old ^ bit;
        write = i->alu != 0;
        break;
    }
    case EXCHANGE:
        new = other;
        set_register(m, i, size, old);
        break;
    case EXCHANGE_ADD:
        new = compute(m, ADD, old, other, size);
        set_register(m, i, size, old);
        break;
    default: /* COMPARE_EXCHANGE */
        compute(m, CMP, m->gpr[RAX], old, size);
        new = m->rflags & ZF ? other : old;
        if (!(m->rflags & ZF))
            set_register(m, &(instruction){.reg = RAX}, size, old);
    }
    if (!write || store(e, at, new, (u32)size))
        return 1;
    *m = before;
    return 0;
}

static int move(emulation *e, const instruction *i)
{
    machine *m = &e->m;
    u64 at = memory_operand(i, m), value;
    if (i->to == MEMORY)
        return store(e, at, i->from == IMMEDIATE ? i->immediate : get_register(m, i, i->size),
                     i->size);
    if (!load(e, at, &value, i->size))
        return 0;
    set_register(m, i, i->wide, extend(value, i->size, i->operation == MOVE_SIGN));
    return 1;
}

static int port_access(emulation *e, const instruction *i)
{
    machine *m = &e->m;
    u16 number = (u16)(i->immediate > 0xffff ? m->gpr[RDX] : i->immediate);
    u64 value = m->gpr[RAX];
    if (!port(e, number, &value, i->size, i->operation == OUT))
        return 0;
    if (i->operation == IN)
        set_register(m, i, i->size, value);
    return 1;
}

/* One element of a string instruction. */
static int element(emulation *e, const instruction *i)
{
    machine *m = &e->m;
    u64 value = m->gpr[RAX], other, source = source_string(i, m), to = destination_string(i, m);
    i64 step = m->rflags & DF ? -(i64)i->size : i->size;
    int uses_source = i->operation != STOS && i->operation != SCAS && i->operation != INS;
    int uses_destination = i->operation != LODS && i->operation != OUTS;
    if (uses_source && !load(e, source, &value, i->size))
        return 0;
    switch (i->operation) {
    case INS:
        if (!port(e, (u16)m->gpr[RDX], &value, i->size, 0))
            return 0;
        /* fall through */
    case MOVS:
    case STOS:
        if (!store(e, to, value, i->size))
            return 0;
        break;
    case OUTS:
        if (!port(e, (u16)m->gpr[RDX], &value, i->size, 1))
            return 0;
        break;
    case LODS:
        set_register(m, &(instruction){.reg = RAX}, i->size, value);
        break;
    default: /* CMPS, SCAS */
        if (!load(e, to, &other, i->size))
            return 0;
        compute(m, CMP, value, other, i->size);
    }
    if (uses_source)
        advance(m, i, RSI, step);
    if (uses_destination)
        advance(m, i, RDI, step);
    return 1;
}

static int repeat(emulation *e, const instruction *i)
{
    machine *m = &e->m;
    if (!i->repeat)
        return element(e, i);
    int compares = i->operation == CMPS || i->operation == SCAS;
    while (m->gpr[RCX] & mask(i->address_size)) {
        if (!element(e, i))
            return 0;
        advance(m, i, RCX, -1);
        if (compares && !(m->rflags & ZF) == (i->repeat == 0xf3))
            break;
    }
    return 1;
}

static int execute(emulation *e, const instruction *i)
{
    if (is_string(i))
        return repeat(e, i);
    switch (i->operation) {
    case MOVE:
    case MOVE_ZERO:
    case MOVE_SIGN:
        return move(e, i);
    case IN:
    case OUT:
        return port_access(e, i);
    case ALU:
        if (i->to == REGISTER) { /* the memory operand is the second one */
            u64 value;
            if (!load(e, memory_operand(i, &e->m), &value, i->size))
                return 0;
            u64 own = get_register(&e->m, i, i->size);
            u64 result = compute(&e->m, i->alu, own, value, i->size);
            if (i->alu != CMP)
                set_register(&e->m, i, i->size, result);
            return 1;
        }
        break;
    default:
        break;
    }
    return modify(e, i);
}

/* The processor's registers, in the order in which they are asked for and set. */
enum { GENERAL = 18, SEGMENTS = 6, NAMES = GENERAL + SEGMENTS };

static void name_registers(WHV_REGISTER_NAME names[NAMES])
{
    for (int n = 0; n < GENERAL; n++) /* RAX to R15, RIP, RFLAGS */
        names[n] = WHvX64RegisterRax + n;
    for (int n = 0; n < SEGMENTS; n++)
        names[GENERAL + n] = WHvX64RegisterEs + n;
}

/* The callbacks' values, at 8 modulo 16: who hands them on to the platform has to copy them first. */
typedef struct {
    u64 before;
    u8 values[NAMES * sizeof(WHV_REGISTER_VALUE)];
} __attribute__((aligned(16))) misaligned;

static int read_registers(emulation *e, const WHV_VP_EXIT_CONTEXT *vp)
{
    WHV_REGISTER_NAME names[NAMES];
    WHV_REGISTER_VALUE values[NAMES];
    misaligned lent;
    name_registers(names);
    if (e->call->WHvEmulatorGetVirtualProcessorRegisters(e->context, names, NAMES,
                                                         (WHV_REGISTER_VALUE *)lent.values)) {
        e->status->GetVirtualProcessorRegistersCallbackFailed = 1;
        return 0;
    }
    copy(values, lent.values, sizeof values);
    for (int n = 0; n < 16; n++)
        e->m.gpr[n] = values[n].Reg64;
    e->m.rip = values[16].Reg64;
    e->m.rflags = values[17].Reg64;
    for (int n = 0; n < SEGMENTS; n++)
        e->m.bases[n] = values[GENERAL + n].Segment.Base;
    int is_long = vp->ExecutionState.EferLma && vp->Cs.Long;
    e->m.bits = is_long ? 64 : vp->Cs.Default ? 32 : 16;
    e->user = vp->ExecutionState.Cpl == 3;
    return 1;
}

static int set_registers(emulation *e, const WHV_REGISTER_NAME *names, u32 count,
                         const WHV_REGISTER_VALUE *values)
{
    misaligned lent;
    copy(lent.values, values, count * sizeof *values);
    if (!e->call->WHvEmulatorSetVirtualProcessorRegisters(e->context, names, count,
                                                          (WHV_REGISTER_VALUE *)lent.values))
        return 1;
    e->status->SetVirtualProcessorRegistersCallbackFailed = 1;
    return 0;
}

static int write_registers(emulation *e)
{
    WHV_REGISTER_NAME names[NAMES];
    WHV_REGISTER_VALUE values[GENERAL] = {0};
    name_registers(names);
    for (int n = 0; n < 16; n++)
        values[n].Reg64 = e->m.gpr[n];
    values[16].Reg64 = e->m.rip;
    values[17].Reg64 = e->m.rflags;
    return set_registers(e, names, GENERAL, values);
}

static int inject_page_fault(emulation *e)
{
    WHV_REGISTER_NAME names[] = {WHvX64RegisterCr2, WHvRegisterPendingInterruption};
    WHV_REGISTER_VALUE values[2] = {0};
    values[0].Reg64 = e->fault_address;
    values[1].PendingInterruption.InterruptionPending = 1;
    values[1].PendingInterruption.InterruptionType = WHvX64PendingException;
    values[1].PendingInterruption.DeliverErrorCode = 1;
    values[1].PendingInterruption.InterruptionVector = WHvX64ExceptionTypePageFault;
    values[1].PendingInterruption.ErrorCode = e->fault_code;
    return set_registers(e, names, 2, values);
}

/* The exit's bytes are decoded; if they do not suffice, more are fetched as any memory. */
static int decode_at(emulation *e, instruction *i, const u8 *given, u32 count)
{
    u8 bytes[LONGEST];
    count = (u32)smaller(count, LONGEST);
    copy(bytes, given, count);
    if (decode(i, bytes, count, e->m.bits))
        return 1;
    u64 at = linear(&e->m, CS, e->m.rip);
    while (count < LONGEST) {
        u64 next = at + count;
        u32 in_page = (u32)smaller(LONGEST - count, PAGE - next % PAGE);
        if (!access(e, next, bytes + count, in_page, 0, WHvTranslateGvaFlagValidateExecute))
            return 0;
        count += in_page;
        if (decode(i, bytes, count, e->m.bits))
            return 1;
    }
    e->status->InternalEmulationFailure = 1;
    return 0;
}

static HRESULT emulate(WHV_EMULATOR_HANDLE handle, void *context, const WHV_VP_EXIT_CONTEXT *vp,
                       const u8 *bytes, u32 count, WHV_EMULATOR_STATUS *status)
{
    const emulator *which = handle;
    if (!is_genuine(which) || !vp || !status || count > 16)
        return E_INVALIDARG;
    status->AsUINT32 = 0;
    if (vp->ExecutionState.InterruptionPending) {
        status->InterruptCausedIntercept = 1;
        return S_OK;
    }
    emulation e = {.call = &which->callbacks, .context = context, .status = status};
    instruction i;
    if (!read_registers(&e, vp))
        return S_OK;
    if (decode_at(&e, &i, bytes, count) && execute(&e, &i)) {
        e.m.rip = (e.m.rip + i.length) & mask(e.m.bits / 8);
        status->EmulationSuccessful = (u32)write_registers(&e);
    } else if (e.faulted)
        status->EmulationSuccessful = (u32)inject_page_fault(&e);
    return S_OK;
}

EXPORT HRESULT WINAPI WHvEmulatorTryIoEmulation(WHV_EMULATOR_HANDLE handle, VOID *context,
                                                const WHV_VP_EXIT_CONTEXT *vp,
                                                const WHV_X64_IO_PORT_ACCESS_CONTEXT *access,
                                                WHV_EMULATOR_STATUS *status)
{
    if (!access)
        return E_INVALIDARG;
    return emulate(handle, context, vp, access->InstructionBytes, access->InstructionByteCount,
                   status);
}

EXPORT HRESULT WINAPI WHvEmulatorTryMmioEmulation(WHV_EMULATOR_HANDLE handle, VOID *context,
                                                  const WHV_VP_EXIT_CONTEXT *vp,
                                                  const WHV_MEMORY_ACCESS_CONTEXT *access,
                                                  WHV_EMULATOR_STATUS *status)
{
    if (!access)
        return E_INVALIDARG;
    return emulate(handle, context, vp, access->InstructionBytes, access->InstructionByteCount,
                   status);
}
