/*
 * Undoing what KVM has begun.
 *
 * KVM stops in the middle of an instruction, with part of it done, and finishes it in the next run;
 * WHP stops before it, with nothing done, and leaves it to the caller. So what KVM has begun is
 * finished here at once, with nothing to read, and then undone: by the registers that it had before.
 */
#include "undo.h"

static int is_access(u32 reason) { return reason == KVM_EXIT_IO || reason == KVM_EXIT_MMIO; }

machine machine_of(const state *s)
{
    const struct kvm_regs *r = &s->regs;
    const struct kvm_sregs *t = &s->sregs;
    machine m = {
        .gpr = {r->rax, r->rcx, r->rdx, r->rbx, r->rsp, r->rbp, r->rsi, r->rdi},
        .rip = r->rip,
        .rflags = r->rflags,
        .bases = {t->es.base, t->cs.base, t->ss.base, t->ds.base, t->fs.base, t->gs.base},
        .bits = t->efer >> 10 & 1 && t->cs.l ? 64 : t->cs.db ? 32 : 16,
    };
    copy(m.gpr + 8, &r->r8, 64);
    return m;
}

static void put_strings(const machine *m, struct kvm_regs *r)
{
    r->rcx = m->gpr[RCX];
    r->rsi = m->gpr[RSI];
    r->rdi = m->gpr[RDI];
}

/* The instruction's bytes from an offset in the code segment on. */
u32 code_at(partition *p, state *s, const machine *m, u64 rip, u8 bytes[16])
{
    u64 offset = m->bits == 64 ? rip : rip & 0xffffffff;
    return read_linear(p, s, linear(m, CS, offset), bytes, 16);
}

static i64 direction(const machine *m, const instruction *i)
{
    return m->rflags >> 10 & 1 ? -(i64)i->size : i->size;
}

static int is_write(partition *p, state *s, u64 at, u32 size, u64 value, const access *a)
{
    u64 gpa;
    return a->size == size && !((value ^ *(u64 *)a->data) & mask((int)size)) &&
           walk(p, s, at, 0, &gpa) <= WHvTranslateGvaResultGpaUnmapped && gpa == a->gpa;
}

/* Does this instruction, begun in this state, write what was written? */
static int explains(partition *p, state *s, const instruction *i, const machine *m, const access *a)
{
    u64 value = 0;
    if (a->port_access) {
        if (i->size != a->size)
            return 0;
        if (i->operation == OUT) {
            u64 port = i->immediate > 0xffff ? m->gpr[RDX] & 0xffff : i->immediate;
            value = m->gpr[RAX];
            return port == a->port && !((value ^ *(u64 *)a->data) & mask(a->size));
        }
        return i->operation == OUTS && (m->gpr[RDX] & 0xffff) == a->port &&
               read_linear(p, s, source_string(i, m), &value, a->size) == a->size &&
               !((value ^ *(u64 *)a->data) & mask(a->size));
    }
    if (i->to != MEMORY)
        return 0;
    if (i->operation != MOVE && i->operation != MOVS && i->operation != STOS)
        return 0;
    u64 at = is_string(i) ? destination_string(i, m) : memory_operand(i, m);
    if (i->operation != MOVS)
        value = i->from == IMMEDIATE ? i->immediate
                : i->operation == STOS ? m->gpr[RAX]
                                       : get_register(m, i, i->size);
    else if (read_linear(p, s, source_string(i, m), &value, i->size) != i->size)
        return 0;
    u32 first = (u32)smaller(i->size, PAGE - at % PAGE), second = i->size - first;
    return is_write(p, s, at, first, value, a) ||
           (second && is_write(p, s, at + first, second, value >> first * 8, a));
}

/*
 * Find the store that KVM's emulator has carried out: registers and RIP are those after it, and the
 * access is still to be made. A repeated string instruction stays where it is, with one element
 * done; anything else ends where RIP is. Candidates are held against what was written, the longest
 * first: if two explain it, they differ in a prefix that changes nothing.
 */
static int rewind(partition *p, processor *vp, const access *a, instruction *found)
{
    state *s = &vp->state;
    machine after = machine_of(s);
    for (int tried = 0; tried <= LONGEST; tried++) {
        int length = tried ? LONGEST + 1 - tried : 0;
        u8 bytes[16];
        machine m = after;
        m.rip -= (u64)length;
        u32 count = code_at(p, s, &m, m.rip, bytes);
        if (!decode(found, bytes, count, m.bits) || (length && found->length != length))
            continue;
        if (!length && !(is_string(found) && found->repeat))
            continue;
        if (is_string(found)) {
            i64 step = direction(&m, found);
            if (found->operation != OUTS)
                advance(&m, found, RDI, -step);
            if (found->operation != STOS)
                advance(&m, found, RSI, -step);
            if (found->repeat)
                advance(&m, found, RCX, 1);
        }
        if (!explains(p, s, found, &m, a))
            continue;
        s->regs.rip = m.rip;
        put_strings(&m, &s->regs);
        return 1;
    }
    return 0;
}

/*
 * Let KVM finish what it has begun, reading zeros. A repetition would go on with the next element,
 * each an exit of its own: with 1 in RCX this one is the last.
 */
void finish(processor *vp, const instruction *i)
{
    struct kvm_run *run = vp->run;
    i64 result;
    if (i->length && is_string(i) && i->repeat) {
        struct kvm_regs last = vp->state.regs;
        last.rcx = 1;
        ioctl(vp->fd, KVM_SET_REGS, &last);
    }
    int accesses = 0; /* a page's border and reading before writing: no instruction makes more */
    do {
        if (run->exit_reason == KVM_EXIT_MMIO && !run->mmio.is_write)
            clear(run->mmio.data, sizeof run->mmio.data);
        if (run->exit_reason == KVM_EXIT_IO && run->io.direction == KVM_EXIT_IO_IN)
            clear((u8 *)run + run->io.data_offset, (u64)run->io.size * run->io.count);
        if (run->exit_reason == KVM_EXIT_X86_RDMSR)
            run->msr.data = 0;
        run->msr.error = is_access(run->exit_reason) ? run->msr.error : 0;
        run->immediate_exit = 1;
        result = ioctl(vp->fd, KVM_RUN, 0);
    } while (!result && is_access(run->exit_reason) && ++accesses < 8);
}

/* Undo an instruction at which KVM stopped: afterwards the processor is just before it. */
int undo(partition *p, processor *vp, access *a, instruction *i, u8 bytes[16], u32 *count,
                u32 *length)
{
    state *s = &vp->state;
    struct kvm_regs before = s->regs, after;
    machine m = machine_of(s);
    u8 saved[8] = {0};
    u64 overwritten = 0;
    *count = code_at(p, s, &m, m.rip, bytes);
    if (!decode(i, bytes, *count, m.bits))
        i->length = 0;
    u32 there = 0; /* a bit for each byte of memory to which finishing writes what zeros lead to */
    if (!a->write && i->length && i->to == MEMORY) {
        overwritten = is_string(i) ? destination_string(i, &m) : memory_operand(i, &m);
        for (u32 k = 0; k < i->size; k++)
            there |= read_linear(p, s, overwritten + k, saved + k, 1) << k;
    }
    finish(vp, i);
    ioctl(vp->fd, KVM_GET_REGS, &after);
    int stepped_over = a->write && (!a->port_access || after.rip == before.rip);
    if (stepped_over && !rewind(p, vp, a, i))
        return 0;
    for (u32 k = 0; k < sizeof saved; k++)
        if (there >> k & 1)
            write_linear(p, s, overwritten + k, saved + k, 1);
    ioctl(vp->fd, KVM_SET_REGS, &s->regs);
    if (s->events.interrupt.shadow) { /* finishing the instruction has ended it */
        s->events.flags = KVM_VCPUEVENT_VALID_SHADOW;
        ioctl(vp->fd, KVM_SET_VCPU_EVENTS, &s->events);
    }
    if (stepped_over) {
        m = machine_of(s);
        *count = code_at(p, s, &m, m.rip, bytes);
    }
    u64 moved = after.rip - before.rip;
    *length = i->length ? i->length : moved <= LONGEST ? (u32)moved : 0;
    return 1;
}
