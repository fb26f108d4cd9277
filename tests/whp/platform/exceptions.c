/* The exceptions that an instruction raises, found by looking at it before it is executed. */
#include "undo.h"

enum { PRESENT = 1, WRITE = 2, USER = 4, FETCH = 16 }; /* of a page fault's error code */

static int changes_memory(const instruction *i)
{
    enum { COMPARE = 7 };
    return i->to == MEMORY && i->operation != TEST &&
           !(i->operation == ALU && i->alu == COMPARE) &&
           !(i->operation == BIT_TEST && !(i->alu & 3));
}

/* A page fault at an address, if an access of this kind raises one. */
static int page_fault(partition *p, state *s, u64 address, u32 access, WHV_VP_EXCEPTION_CONTEXT *to)
{
    u64 gpa;
    u32 flags = access & WRITE ? WHvTranslateGvaFlagValidateWrite
                : access & FETCH ? WHvTranslateGvaFlagValidateExecute
                                 : WHvTranslateGvaFlagValidateRead;
    if (!(s->regs.rflags >> 18 & 1)) /* AC */
        flags |= WHvTranslateGvaFlagEnforceSmap;
    if ((i64)(address << 16) >> 16 != (i64)address) /* not canonical: another exception */
        return 0;
    WHV_TRANSLATE_GVA_RESULT_CODE found = walk(p, s, address, flags, &gpa);
    if (found != WHvTranslateGvaResultPageNotPresent &&
        found != WHvTranslateGvaResultPrivilegeViolation)
        return 0;
    int protects = s->sregs.efer >> 11 & 1 || s->sregs.cr4 >> 20 & 1; /* NXE, SMEP */
    to->ExceptionType = WHvX64ExceptionTypePageFault;
    to->ExceptionInfo.ErrorCodeValid = 1;
    to->ErrorCode = (found == WHvTranslateGvaResultPrivilegeViolation ? PRESENT : 0) |
                    (access & WRITE) | (s->sregs.ss.dpl == 3 ? USER : 0) |
                    (protects ? access & FETCH : 0);
    to->ExceptionParameter = address;
    return 1;
}

/* The first page of an operand that raises a page fault. */
static int operand_fault(partition *p, state *s, const machine *m, const u8 *bytes, u32 count,
                         WHV_VP_EXCEPTION_CONTEXT *to)
{
    instruction i;
    if (!decode(&i, bytes, count, m->bits) || is_string(&i) || (i.to != MEMORY && i.from != MEMORY))
        return 0;
    u64 address = memory_operand(&i, m), last = address + i.size - 1;
    u32 access = changes_memory(&i) ? WRITE : 0;
    return page_fault(p, s, address, access, to) ||
           ((address ^ last) & ~(u64)(PAGE - 1) &&
            page_fault(p, s, last & ~(u64)(PAGE - 1), access, to));
}

int next_exception(partition *p, state *s, const machine *m, const u8 *bytes, u32 count,
                   WHV_VP_EXCEPTION_CONTEXT *to)
{
    u64 wanted = p->properties.exception_exits;
    int found = 0;
    clear(to, sizeof *to);
    /* What is delivered comes first; the instruction is not begun. */
    if (s->events.exception.injected || s->events.interrupt.injected || s->events.nmi.injected)
        return 0;
    if (s->sregs.cr0 >> 31 && !count)
        found = page_fault(p, s, linear(m, CS, m->rip), FETCH, to);
    else if (count && bytes[0] == 0xcc) {
        to->ExceptionType = WHvX64ExceptionTypeBreakpointTrap;
        to->ExceptionInfo.SoftwareException = 1;
        found = 1;
    } else if (count > 1 && bytes[0] == 0x0f && bytes[1] == 0x0b) { /* UD2 */
        to->ExceptionType = WHvX64ExceptionTypeInvalidOpcodeFault;
        found = 1;
    } else if (s->sregs.cr0 >> 31)
        found = operand_fault(p, s, m, bytes, count, to);
    if (!found || !(wanted >> to->ExceptionType & 1))
        return 0;
    to->InstructionByteCount = (u8)count;
    copy(to->InstructionBytes, bytes, count);
    return 1;
}
