/*
 * Running a processor until it exits, as WHP tells of it: before the instruction, with nothing done.
 */
#include "undo.h"

enum { SIGNAL_SET = 8, SIG_SETMASK = 2, SIG_BLOCK = 0 };
static const u64 KICK = 1ull << (KICK_SIGNAL - 1);

static void tell_port_access(const processor *vp, const access *a, const instruction *i,
                             WHV_X64_IO_PORT_ACCESS_CONTEXT *to)
{
    const state *s = &vp->state;
    to->AccessInfo.IsWrite = a->write;
    to->AccessInfo.AccessSize = a->size;
    to->AccessInfo.StringOp = i->length && is_string(i);
    to->AccessInfo.RepPrefix = to->AccessInfo.StringOp && i->repeat;
    to->PortNumber = a->port;
    to->Rax = s->regs.rax;
    to->Rcx = s->regs.rcx;
    to->Rsi = s->regs.rsi;
    to->Rdi = s->regs.rdi;
    segment_out(&s->sregs.ds, &to->Ds);
    segment_out(&s->sregs.es, &to->Es);
}

static void tell_memory_access(partition *p, const processor *vp, const access *a,
                               const instruction *i, WHV_MEMORY_ACCESS_CONTEXT *to)
{
    machine m = machine_of(&vp->state);
    to->AccessInfo.AccessType = a->write ? WHvMemoryAccessWrite : WHvMemoryAccessRead;
    to->AccessInfo.GpaUnmapped = !is_mapped(p, a->gpa);
    to->Gpa = a->gpa;
    if (i->length && !is_string(i)) {
        to->AccessInfo.GvaValid = 1;
        to->Gva = memory_operand(i, &m);
    }
}

/* An access to a port or to memory that is not there. */
static void intercept_access(partition *p, processor *vp, WHV_RUN_VP_EXIT_CONTEXT *exit)
{
    const struct kvm_run *run = vp->run;
    access a = {.port_access = run->exit_reason == KVM_EXIT_IO};
    if (a.port_access) {
        a.write = run->io.direction == KVM_EXIT_IO_OUT;
        a.port = run->io.port;
        a.size = run->io.size;
        copy(a.data, (u8 *)run + run->io.data_offset, a.size);
    } else {
        a.write = run->mmio.is_write;
        a.gpa = run->mmio.phys_addr;
        a.size = (u8)run->mmio.len;
        copy(a.data, run->mmio.data, a.size);
    }
    instruction i;
    u8 bytes[16];
    u32 count, length;
    if (!undo(p, vp, &a, &i, bytes, &count, &length)) {
        exit->ExitReason = WHvRunVpExitReasonUnsupportedFeature;
        exit->UnsupportedFeature.FeatureCode = WHvUnsupportedFeatureIntercept;
        return;
    }
    exit->VpContext.InstructionLength = (u8)length;
    if (a.port_access) {
        exit->ExitReason = WHvRunVpExitReasonX64IoPortAccess;
        exit->IoPortAccess.InstructionByteCount = (u8)count;
        copy(exit->IoPortAccess.InstructionBytes, bytes, count);
        tell_port_access(vp, &a, &i, &exit->IoPortAccess);
    } else {
        exit->ExitReason = WHvRunVpExitReasonMemoryAccess;
        exit->MemoryAccess.InstructionByteCount = (u8)count;
        copy(exit->MemoryAccess.InstructionBytes, bytes, count);
        tell_memory_access(p, vp, &a, &i, &exit->MemoryAccess);
    }
}

static void intercept_msr(partition *p, processor *vp, WHV_RUN_VP_EXIT_CONTEXT *exit)
{
    struct kvm_run *run = vp->run;
    int write = run->exit_reason == KVM_EXIT_X86_WRMSR;
    u32 msr = run->msr.index;
    int unimplemented = run->msr.reason == KVM_MSR_EXIT_REASON_UNKNOWN;
    u32 action = msr_action(p, msr, write, unimplemented);
    if (action != WHvMsrActionExit) { /* the next run finishes it: with zero, or with #GP */
        run->msr.data = write ? run->msr.data : 0;
        run->msr.error = action == WHvMsrActionArchitectureDefault;
        return;
    }
    finish(vp, &(instruction){0});
    ioctl(vp->fd, KVM_SET_REGS, &vp->state.regs);
    exit->ExitReason = WHvRunVpExitReasonX64MsrAccess;
    exit->VpContext.InstructionLength = 2;
    exit->MsrAccess.AccessInfo.IsWrite = write;
    exit->MsrAccess.MsrNumber = msr;
    exit->MsrAccess.Rax = vp->state.regs.rax;
    exit->MsrAccess.Rdx = vp->state.regs.rdx;
}

/* KVM's emulator gave up: because there is nothing to execute, or at what it does not know. */
static void intercept_failure(partition *p, processor *vp, WHV_RUN_VP_EXIT_CONTEXT *exit)
{
    machine m = machine_of(&vp->state);
    u64 gpa, at = linear(&m, CS, m.rip);
    if (walk(p, &vp->state, at, 0, &gpa) == WHvTranslateGvaResultGpaUnmapped) {
        exit->ExitReason = WHvRunVpExitReasonMemoryAccess;
        exit->MemoryAccess.AccessInfo.AccessType = WHvMemoryAccessExecute;
        exit->MemoryAccess.AccessInfo.GpaUnmapped = 1;
        exit->MemoryAccess.AccessInfo.GvaValid = 1;
        exit->MemoryAccess.Gpa = gpa;
        exit->MemoryAccess.Gva = at;
        return;
    }
    exit->ExitReason = WHvRunVpExitReasonUnsupportedFeature;
    exit->UnsupportedFeature.FeatureCode = WHvUnsupportedFeatureIntercept;
}

static int wants_cpuid_exit(const partition *p, u32 leaf)
{
    for (u32 i = 0; i < p->properties.cpuid_exit_count; i++)
        if (p->properties.cpuid_exits[i] == leaf)
            return 1;
    return 0;
}

static void step(processor *vp, int stepping)
{
    struct kvm_guest_debug debug;
    if (stepping == vp->stepping)
        return;
    clear(&debug, sizeof debug);
    debug.control = stepping ? KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP : 0;
    ioctl(vp->fd, KVM_SET_GUEST_DEBUG, &debug);
    vp->stepping = stepping;
}

/*
 * KVM tells of no CPUID and of no exceptions but, in some modes, INT3: while somebody wants to
 * know, every instruction is looked at before it is executed.
 */
static int look_ahead(partition *p, processor *vp, WHV_RUN_VP_EXIT_CONTEXT *exit)
{
    const properties *from = &p->properties;
    WHV_EXTENDED_VM_EXITS exits = {.AsUINT64 = from->extended_exits};
    int cpuid = exits.X64CpuidExit && from->cpuid_exit_count;
    int exceptions = exits.ExceptionExit && from->exception_exits;
    if (!cpuid && !exceptions) {
        step(vp, 0);
        return 0;
    }
    need(vp, REGS | SREGS | EVENTS);
    state *s = &vp->state;
    machine m = machine_of(s);
    u8 bytes[16];
    u32 count = code_at(p, s, &m, m.rip, bytes);
    u32 leaf = (u32)s->regs.rax;
    /* A step over HLT is told as the step, and the halt is lost; an APIC's processor sleeps. */
    step(vp, p->properties.apic_mode || !count || bytes[0] != 0xf4);
    if (cpuid && count > 1 && bytes[0] == 0x0f && bytes[1] == 0xa2 && wants_cpuid_exit(p, leaf)) {
        u32 defaults[4];
        find_cpuid(p, vp, leaf, (u32)s->regs.rcx, defaults);
        WHV_X64_CPUID_ACCESS_CONTEXT *to = &exit->CpuidAccess;
        exit->ExitReason = WHvRunVpExitReasonX64Cpuid;
        exit->VpContext.InstructionLength = 2;
        to->Rax = s->regs.rax, to->Rbx = s->regs.rbx;
        to->Rcx = s->regs.rcx, to->Rdx = s->regs.rdx;
        to->DefaultResultRax = defaults[0], to->DefaultResultRbx = defaults[1];
        to->DefaultResultRcx = defaults[2], to->DefaultResultRdx = defaults[3];
        return 1;
    }
    if (exceptions && next_exception(p, s, &m, bytes, count, &exit->VpException)) {
        exit->ExitReason = WHvRunVpExitReasonException;
        exit->VpContext.InstructionLength = (u8)exit->VpException.ExceptionInfo.SoftwareException;
        return 1;
    }
    return 0;
}

/* KVM_RUN, which a cancellation ends: now, or at once if it came before. */
static i64 enter_guest(processor *vp, u32 thread)
{
    i64 result = -EINTR;
    WHV_X64_DELIVERABILITY_NOTIFICATIONS_REGISTER wanted = {.AsUINT64 = vp->notifications};
    vp->run->request_interrupt_window = (u8)wanted.InterruptNotification;
    vp->run->immediate_exit = 0;
    acquire(&vp->kicking);
    vp->thread = thread;
    release(&vp->kicking);
    if (!__atomic_load_n(&vp->cancelled, __ATOMIC_SEQ_CST))
        result = ioctl(vp->fd, KVM_RUN, 0);
    acquire(&vp->kicking);
    vp->thread = 0;
    release(&vp->kicking);
    return result;
}

/* What KVM came back with, as an exit; WHvRunVpExitReasonNone: run on. */
static void interpret(partition *p, processor *vp, WHV_RUN_VP_EXIT_CONTEXT *exit)
{
    const struct kvm_run *run = vp->run;
    WHV_X64_DELIVERABILITY_NOTIFICATIONS_REGISTER wanted = {.AsUINT64 = vp->notifications};
    switch (run->exit_reason) {
    case KVM_EXIT_IO:
    case KVM_EXIT_MMIO:
        need(vp, REGS | SREGS | EVENTS);
        intercept_access(p, vp, exit);
        return;
    case KVM_EXIT_X86_RDMSR:
    case KVM_EXIT_X86_WRMSR:
        need(vp, REGS | SREGS | EVENTS);
        intercept_msr(p, vp, exit);
        return;
    case KVM_EXIT_HLT: /* RIP is behind it there as well: OpenVMM does not advance it */
        exit->ExitReason = WHvRunVpExitReasonX64Halt;
        return;
    case KVM_EXIT_IRQ_WINDOW_OPEN:
        if (!wanted.InterruptNotification)
            return;
        wanted.InterruptNotification = 0; /* it is told once: QEMU, whpx_vcpu_run */
        vp->notifications = wanted.AsUINT64;
        exit->ExitReason = WHvRunVpExitReasonX64InterruptWindow;
        exit->InterruptWindow.DeliverableType = WHvX64PendingInterrupt;
        return;
    case KVM_EXIT_IOAPIC_EOI:
        exit->ExitReason = WHvRunVpExitReasonX64ApicEoi;
        exit->ApicEoi.InterruptVector = run->eoi.vector;
        return;
    case KVM_EXIT_SHUTDOWN:
        exit->ExitReason = WHvRunVpExitReasonUnrecoverableException;
        return;
    case KVM_EXIT_FAIL_ENTRY:
        exit->ExitReason = WHvRunVpExitReasonInvalidVpRegisterValue;
        return;
    case KVM_EXIT_INTERNAL_ERROR:
        need(vp, REGS | SREGS | EVENTS);
        intercept_failure(p, vp, exit);
        return;
    case KVM_EXIT_DEBUG: /* one step; the next instruction is looked at before it runs */
    case KVM_EXIT_HYPERV: /* an enlightenment's page has moved: nobody has to know */
    case KVM_EXIT_INTR:
        return;
    }
    exit->ExitReason = WHvRunVpExitReasonUnsupportedFeature;
    exit->UnsupportedFeature.FeatureCode = WHvUnsupportedFeatureIntercept;
    exit->UnsupportedFeature.FeatureParameter = run->exit_reason;
}

static void describe(processor *vp, WHV_VP_EXIT_CONTEXT *to)
{
    need(vp, REGS | SREGS | EVENTS);
    const state *s = &vp->state;
    to->ExecutionState.Cpl = s->sregs.ss.dpl;
    to->ExecutionState.Cr0Pe = s->sregs.cr0 & 1;
    to->ExecutionState.Cr0Am = s->sregs.cr0 >> 18 & 1;
    to->ExecutionState.EferLma = s->sregs.efer >> 10 & 1;
    to->ExecutionState.InterruptionPending = s->events.interrupt.injected ||
                                             s->events.exception.injected || s->events.nmi.injected;
    to->ExecutionState.InterruptShadow = s->events.interrupt.shadow != 0;
    to->Cr8 = (u8)s->sregs.cr8;
    segment_out(&s->sregs.cs, &to->Cs);
    to->Rip = s->regs.rip;
    to->Rflags = s->regs.rflags;
}

/* While a processor runs, the kick is blocked everywhere but in KVM_RUN: it needs no handler. */
static u64 block_kick(processor *vp)
{
    struct {
        struct kvm_signal_mask head;
        u64 set;
    } __attribute__((packed)) in_guest = {{.len = SIGNAL_SET}, 0};
    u64 old = 0;
    system_call(SYS_rt_sigprocmask, SIG_BLOCK, (i64)&KICK, (i64)&old, SIGNAL_SET, 0, 0);
    in_guest.set = old & ~KICK;
    ioctl(vp->fd, KVM_SET_SIGNAL_MASK, &in_guest);
    return old;
}

/* Kicks queue; those left over would end the next KVM_RUN, or the whole process. */
static void take_kicks(void)
{
    i64 at_once[2] = {0, 0};
    while (system_call(SYS_rt_sigtimedwait, (i64)&KICK, 0, (i64)at_once, SIGNAL_SET, 0, 0) > 0)
        continue;
}

static void unblock_kick(u64 old)
{
    take_kicks();
    system_call(SYS_rt_sigprocmask, SIG_SETMASK, (i64)&old, 0, SIGNAL_SET, 0, 0);
}

EXPORT HRESULT WINAPI WHvRunVirtualProcessor(WHV_PARTITION_HANDLE handle, UINT32 index,
                                             VOID *context, UINT32 size)
{
    HRESULT error = S_OK;
    partition *p;
    if ((u64)context % _Alignof(WHV_RUN_VP_EXIT_CONTEXT))
        return STATUS_ACCESS_VIOLATION;
    processor *vp = enter(handle, index, &p, &error);
    if (!vp)
        return error;
    if (resume_time(p) || deliver_debug_exception(vp)) {
        leave(vp);
        return E_FAIL;
    }
    WHV_RUN_VP_EXIT_CONTEXT exit;
    clear(&exit, sizeof exit);
    u32 thread = (u32)system_call(SYS_gettid, 0, 0, 0, 0, 0, 0);
    u64 since = nanoseconds();
    u64 signals = block_kick(vp);
    while (!error && exit.ExitReason == WHvRunVpExitReasonNone) {
        forget_state(vp);
        if (look_ahead(p, vp, &exit))
            break;
        i64 result = enter_guest(vp, thread);
        take_kicks();
        forget_state(vp);
        if (!result)
            interpret(p, vp, &exit);
        else if (result != -EINTR && result != -EAGAIN) /* a secondary's start is EAGAIN */
            exit.ExitReason = WHvRunVpExitReasonInvalidVpRegisterValue;
        else if (__atomic_exchange_n(&vp->cancelled, 0, __ATOMIC_SEQ_CST)) {
            exit.ExitReason = WHvRunVpExitReasonCanceled;
            exit.CancelReason.CancelReason = WHvRunVpCancelReasonUser;
        }
    }
    unblock_kick(signals);
    count_exit(vp, exit.ExitReason, since);
    describe(vp, &exit.VpContext);
    forget_state(vp);
    leave(vp);
    copy(context, &exit, smaller(size, sizeof exit));
    return error;
}
