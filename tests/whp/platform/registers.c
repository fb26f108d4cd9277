/* Registers by name: which part of KVM's state has them, and how it is written there. */
#include "platform.h"

typedef WHV_REGISTER_VALUE value;

static i64 get_part(processor *vp, u32 part)
{
    state *s = &vp->state;
    switch (part) {
    case REGS:
        return ioctl(vp->fd, KVM_GET_REGS, &s->regs);
    case SREGS:
        return ioctl(vp->fd, KVM_GET_SREGS, &s->sregs);
    case DEBUG:
        return ioctl(vp->fd, KVM_GET_DEBUGREGS, &s->debug);
    case EVENTS:
        return ioctl(vp->fd, KVM_GET_VCPU_EVENTS, &s->events);
    case XCRS:
        return ioctl(vp->fd, KVM_GET_XCRS, &s->xcrs);
    case XSAVE:
        return ioctl(vp->fd, KVM_GET_XSAVE, s->xsave);
    case LAPIC:
        return ioctl(vp->fd, KVM_GET_LAPIC, &s->lapic);
    }
    return ioctl(vp->fd, KVM_GET_MP_STATE, &s->activity);
}

static i64 set_part(processor *vp, u32 part)
{
    state *s = &vp->state;
    switch (part) {
    case REGS:
        return ioctl(vp->fd, KVM_SET_REGS, &s->regs);
    case SREGS:
        clear(s->sregs.interrupt_bitmap, sizeof s->sregs.interrupt_bitmap); /* it is an event's */
        vp->run->cr8 = s->sregs.cr8; /* where KVM_RUN takes it from without a local APIC */
        return ioctl(vp->fd, KVM_SET_SREGS, &s->sregs);
    case DEBUG:
        return ioctl(vp->fd, KVM_SET_DEBUGREGS, &s->debug);
    case EVENTS:
        s->events.flags &= KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
        return ioctl(vp->fd, KVM_SET_VCPU_EVENTS, &s->events);
    case XCRS:
        return ioctl(vp->fd, KVM_SET_XCRS, &s->xcrs);
    case XSAVE:
        return ioctl(vp->fd, KVM_SET_XSAVE, s->xsave);
    case LAPIC:
        return ioctl(vp->fd, KVM_SET_LAPIC, &s->lapic);
    }
    return ioctl(vp->fd, KVM_SET_MP_STATE, &s->activity);
}

void forget_state(processor *vp) { vp->state.have = vp->state.changed = 0; }

void need(processor *vp, u32 parts)
{
    for (u32 part = 1; part <= ACTIVITY; part <<= 1)
        if (parts & part & ~vp->state.have) {
            get_part(vp, part);
            vp->state.have |= part;
        }
}

/* XCR0 comes before the state that it allows; events after SREGS, which would change them. */
i64 write_back(processor *vp)
{
    static const u32 ORDER[] = {SREGS, REGS, DEBUG, XCRS, XSAVE, LAPIC, ACTIVITY, EVENTS};
    i64 failed = 0;
    for (u32 i = 0; i < sizeof ORDER / sizeof *ORDER && !failed; i++)
        if (vp->state.changed & ORDER[i])
            failed = set_part(vp, ORDER[i]);
    forget_state(vp);
    return failed;
}

/* A trap of the guest's, after an instruction that was not executed but finished for it. */
i64 deliver_debug_exception(processor *vp)
{
    enum { DEBUG_EXCEPTION = 1, DR6_BS = 1 << 14 };
    WHV_X64_PENDING_DEBUG_EXCEPTION r = {.AsUINT64 = vp->debug_exception};
    if (!r.AsUINT64)
        return 0;
    need(vp, EVENTS | DEBUG);
    vp->state.events.exception.injected = 1;
    vp->state.events.exception.nr = DEBUG_EXCEPTION;
    vp->state.events.exception.has_error_code = 0;
    vp->state.debug.dr6 |= (r.AsUINT64 & 0xf) | (r.SingleStep ? DR6_BS : 0);
    vp->state.changed |= EVENTS | DEBUG;
    vp->debug_exception = 0;
    return write_back(vp);
}

void segment_out(const struct kvm_segment *from, WHV_X64_SEGMENT_REGISTER *to)
{
    clear(to, sizeof *to);
    to->Base = from->base;
    to->Limit = from->limit;
    to->Selector = from->selector;
    to->SegmentType = from->type;
    to->NonSystemSegment = from->s;
    to->DescriptorPrivilegeLevel = from->dpl;
    to->Present = from->present && !from->unusable;
    to->Available = from->avl;
    to->Long = from->l;
    to->Default = from->db;
    to->Granularity = from->g;
}

static void segment_in(const WHV_X64_SEGMENT_REGISTER *from, struct kvm_segment *to)
{
    *to = (struct kvm_segment){
        .base = from->Base,
        .limit = from->Limit,
        .selector = from->Selector,
        .type = from->SegmentType,
        .s = from->NonSystemSegment,
        .dpl = from->DescriptorPrivilegeLevel,
        .present = from->Present,
        .avl = from->Available,
        .l = from->Long,
        .db = from->Default,
        .g = from->Granularity,
        .unusable = !from->Present,
    };
}

/* Names that are MSRs, from the first of a row on. */
static const struct {
    u32 name, msr, count, step;
} MSRS[] = {
    {WHvX64RegisterTsc, 0x10, 1, 0},
    {WHvX64RegisterKernelGsBase, 0xc0000102, 1, 0},
    {WHvX64RegisterPat, 0x277, 1, 0},
    {WHvX64RegisterSysenterCs, 0x174, 1, 0},
    {WHvX64RegisterSysenterEip, 0x176, 1, 0},
    {WHvX64RegisterSysenterEsp, 0x175, 1, 0},
    {WHvX64RegisterStar, 0xc0000081, 4, 1}, /* STAR, LSTAR, CSTAR, SFMASK */
    {WHvX64RegisterMsrMtrrCap, 0xfe, 1, 0},
    {WHvX64RegisterMsrMtrrDefType, 0x2ff, 1, 0},
    {WHvX64RegisterMsrMtrrPhysBase0, 0x200, 16, 2},
    {WHvX64RegisterMsrMtrrPhysMask0, 0x201, 16, 2},
    {WHvX64RegisterMsrMtrrFix64k00000, 0x250, 1, 0},
    {WHvX64RegisterMsrMtrrFix16k80000, 0x258, 2, 1},
    {WHvX64RegisterMsrMtrrFix4kC0000, 0x268, 8, 1},
    {WHvX64RegisterTscAux, 0xc0000103, 1, 0},
    {WHvX64RegisterBndcfgs, 0xd90, 1, 0},
    {WHvX64RegisterMCount, 0xe7, 2, 1}, /* MPERF, APERF */
    {WHvX64RegisterSpecCtrl, 0x48, 2, 1}, /* SPEC_CTRL, PRED_CMD */
    {WHvX64RegisterTsxCtrl, 0x122, 1, 0},
    {WHvX64RegisterXss, 0xda0, 1, 0},
    {WHvX64RegisterUCet, 0x6a0, 1, 0},
    {WHvX64RegisterSCet, 0x6a2, 1, 0},
    {WHvX64RegisterPl0Ssp, 0x6a4, 5, 1}, /* and INTERRUPT_SSP_TABLE_ADDR */
    {WHvX64RegisterTscDeadline, 0x6e0, 1, 0},
    {WHvX64RegisterTscAdjust, 0x3b, 1, 0},
    {WHvX64RegisterUmwaitControl, 0xe1, 1, 0},
    {WHvX64RegisterXfd, 0x1c4, 2, 1}, /* and XFD_ERR */
    {WHvX64RegisterMsrIa32MiscEnable, 0x1a0, 1, 0},
    {WHvX64RegisterIa32FeatureControl, 0x3a, 1, 0},
    {WHvX64RegisterAmdVmHsavePa, 0xc0010117, 1, 0},
    {WHvX64RegisterAmdVmCr, 0xc0010114, 1, 0},
    {WHvRegisterSint0, 0x40000090, 16, 1}, /* from here on: TLFS, Synthetic MSRs */
    {WHvRegisterScontrol, 0x40000080, 5, 1},
    {WHvRegisterVpRuntime, 0x40000010, 1, 0},
    {WHvX64RegisterHypercall, 0x40000001, 1, 0},
    {WHvRegisterGuestOsId, 0x40000000, 1, 0},
    {WHvRegisterVpAssistPage, 0x40000073, 1, 0},
    {WHvRegisterReferenceTsc, 0x40000021, 1, 0},
};

static u32 msr_of(u32 name, int *is_msr)
{
    for (u32 i = 0; i < sizeof MSRS / sizeof *MSRS; i++)
        if (name - MSRS[i].name < MSRS[i].count) {
            *is_msr = 1;
            return MSRS[i].msr + (name - MSRS[i].name) * MSRS[i].step;
        }
    *is_msr = 0;
    return 0;
}

/* On AMD's processors these MSRs have 32 bits: KVM gives back more, if the guest wrote more, but does
   not take it. */
static int has_half(partition *p, processor *vp, u32 msr)
{
    enum { SYSENTER_ESP = 0x175, SYSENTER_EIP = 0x176, AUTH = 0x68747541 };
    u32 vendor[4];
    if (msr != SYSENTER_ESP && msr != SYSENTER_EIP)
        return 0;
    find_cpuid(p, vp, 0, 0, vendor);
    return vendor[1] == AUTH;
}

static HRESULT move_msr(partition *p, processor *vp, u32 msr, value *v, int set)
{
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entry;
    } one;
    clear(&one, sizeof one);
    one.head.nmsrs = 1;
    one.entry.index = msr;
    if (set && msr == 0x10) { /* KVM would take 0 for an attempt to synchronise the counter */
        if (ioctl(vp->fd, KVM_GET_MSRS, &one) != 1 || set_counter(vp, one.entry.data, v->Reg64))
            return ERROR_HV_INVALID_PARAMETER;
        return S_OK;
    }
    one.entry.data = set ? v->Reg64 : 0;
    if (ioctl(vp->fd, set ? KVM_SET_MSRS : KVM_GET_MSRS, &one) != 1)
        return ERROR_HV_INVALID_PARAMETER;
    if (!set)
        v->Reg64 = has_half(p, vp, msr) ? (u32)one.entry.data : one.entry.data;
    return S_OK;
}

/* The x87 and SSE registers are in the XSAVE area: its legacy region, as FXSAVE writes it. */
enum { FCW = 0, FTW = 4, FOP = 6, FIP = 8, FDP = 16, MXCSR = 24, ST0 = 32, XMM0 = 160 };
enum { XSTATE_BV = 512 };

static void move_bytes(void *inside, void *outside, u32 size, int set)
{
    copy(set ? inside : outside, set ? outside : inside, size);
}

/* FXSAVE's names of the registers follow the CPU's order; the tag word has a bit for each. */
static void move_fpu(state *s, u32 name, value *v, int set)
{
    u8 *area = s->xsave;
    if (name - WHvX64RegisterXmm0 < 16)
        move_bytes(area + XMM0 + 16 * (name - WHvX64RegisterXmm0), v, 16, set);
    else if (name - WHvX64RegisterFpMmx0 < 8)
        move_bytes(area + ST0 + 16 * (name - WHvX64RegisterFpMmx0), v, 10, set);
    else if (name == WHvX64RegisterFpControlStatus) {
        /* FpControl, FpStatus, FpTag, reserved, LastFpOp and LastFpRip are FXSAVE's bytes 0 to 15. */
        move_bytes(area + FCW, &v->FpControlStatus, 16, set);
        area[FTW + 1] = 0;
    } else {
        move_bytes(area + FDP, &v->XmmControlStatus.LastFpRdp, 8, set);
        move_bytes(area + MXCSR, &v->XmmControlStatus.XmmStatusControl, 4, set);
        if (!set)
            move_bytes(area + MXCSR + 4, &v->XmmControlStatus.XmmStatusControlMask, 4, set);
    }
    if (set) /* otherwise the initial state is loaded instead of what was written */
        *(u64 *)(area + XSTATE_BV) |= 3;
}

static void pending_interruption(state *s, value *v, int set)
{
    struct kvm_vcpu_events *e = &s->events;
    WHV_X64_PENDING_INTERRUPTION_REGISTER *r = &v->PendingInterruption;
    if (!set) {
        r->InterruptionPending = e->interrupt.injected || e->nmi.injected || e->exception.injected;
        r->InterruptionType = e->exception.injected ? WHvX64PendingException
                              : e->nmi.injected     ? WHvX64PendingNmi
                                                    : WHvX64PendingInterrupt;
        r->InterruptionVector = e->exception.injected   ? e->exception.nr
                                : e->nmi.injected       ? 2
                                : e->interrupt.injected ? e->interrupt.nr
                                                        : 0;
        r->DeliverErrorCode = e->exception.injected && e->exception.has_error_code;
        r->ErrorCode = r->DeliverErrorCode ? e->exception.error_code : 0;
        return;
    }
    e->interrupt.injected = e->nmi.injected = e->exception.injected = 0;
    if (!r->InterruptionPending)
        return;
    switch (r->InterruptionType) {
    case WHvX64PendingInterrupt:
        e->interrupt.injected = 1;
        e->interrupt.soft = 0;
        e->interrupt.nr = (u8)r->InterruptionVector;
        break;
    case WHvX64PendingNmi:
        e->nmi.injected = 1;
        break;
    default:
        e->exception.injected = 1;
        e->exception.nr = (u8)r->InterruptionVector;
        e->exception.has_error_code = (u8)r->DeliverErrorCode;
        e->exception.error_code = r->ErrorCode;
    }
}

/* An event that waits until it can be delivered: an exception, or an interrupt of the PIC's. */
static HRESULT pending_event(processor *vp, value *v, int set)
{
    state *s = &vp->state;
    WHV_X64_PENDING_EXCEPTION_EVENT *r = &v->ExceptionEvent;
    if (!set) {
        r->EventPending = s->events.exception.injected;
        r->EventType = WHvX64PendingEventException;
        if (r->EventPending) {
            r->Vector = s->events.exception.nr;
            r->DeliverErrorCode = s->events.exception.has_error_code;
            r->ErrorCode = s->events.exception.error_code;
            r->ExceptionParameter = r->Vector == 14 ? s->sregs.cr2 : 0;
        }
        return S_OK;
    }
    s->events.exception.injected = 0;
    if (!r->EventPending)
        return S_OK;
    if (r->EventType == WHvX64PendingEventExtInt) {
        struct kvm_interrupt irq = {(u32)v->ExtIntEvent.Vector};
        return ioctl(vp->fd, KVM_INTERRUPT, &irq) ? ERROR_HV_INVALID_PARAMETER : S_OK;
    }
    if (r->EventType != WHvX64PendingEventException)
        return ERROR_HV_INVALID_PARAMETER;
    s->events.exception.injected = 1;
    s->events.exception.nr = (u8)r->Vector;
    s->events.exception.has_error_code = (u8)r->DeliverErrorCode;
    s->events.exception.error_code = r->ErrorCode;
    if (r->Vector == 14) {
        s->sregs.cr2 = r->ExceptionParameter;
        s->changed |= SREGS;
    }
    return S_OK;
}

static HRESULT internal_activity(state *s, value *v, int set)
{
    WHV_INTERNAL_ACTIVITY_REGISTER *r = &v->InternalActivity;
    u32 now = s->activity.mp_state;
    if (!set) {
        r->StartupSuspend = now == KVM_MP_STATE_UNINITIALIZED || now == KVM_MP_STATE_INIT_RECEIVED;
        r->HaltSuspend = now == KVM_MP_STATE_HALTED;
        return S_OK;
    }
    if (r->IdleSuspend)
        return ERROR_HV_INVALID_PARAMETER;
    /* Not UNINITIALIZED, in which KVM ignores a SIPI until there was an INIT: it may have been before
       a save. */
    s->activity.mp_state = r->StartupSuspend ? KVM_MP_STATE_INIT_RECEIVED
                           : r->HaltSuspend  ? KVM_MP_STATE_HALTED
                                             : KVM_MP_STATE_RUNNABLE;
    return S_OK;
}

/* Those of the local APIC's that are state: EOI and self IPI only do something when written. */
static int is_apic_register(u32 name)
{
    switch (name) {
    case WHvX64RegisterApicId:
    case WHvX64RegisterApicVersion:
    case WHvX64RegisterApicTpr:
    case WHvX64RegisterApicPpr:
    case WHvX64RegisterApicLdr:
    case WHvX64RegisterApicSpurious:
    case WHvX64RegisterApicIsr0 ... WHvX64RegisterApicEse:
    case WHvX64RegisterApicIcr:
    case WHvX64RegisterApicLvtTimer ... WHvX64RegisterApicCurrentCount:
    case WHvX64RegisterApicDivide:
        return 1;
    }
    return 0;
}

/* Bits of EFER that there are; KVM_SET_SREGS does not look at the others. */
static const u64 EFER_BITS = 1 << 0 | 1 << 8 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 14 | 1 << 15;

/* Eight memory types of a byte each: Intel SDM volume 3, 12.12.2. */
static int is_pat(u64 value)
{
    for (int i = 0; i < 64; i += 8) {
        u8 type = value >> i & 0xff;
        if (type > 7 || type == 2 || type == 3)
            return 0;
    }
    return 1;
}

/* Move one register between a value and the processor's state; unknown names are refused. */
static HRESULT move(partition *p, processor *vp, u32 name, value *v, int set)
{
    state *s = &vp->state;
    struct kvm_regs *r = &s->regs;
    struct kvm_sregs *t = &s->sregs;
    void *at = 0; /* a register of 64 bits */
    u32 part = 0;
    int is_msr;
    HRESULT done = S_OK;
    if (lacks('r', name))
        return WHV_E_INVALID_VP_REGISTER_NAME;
    if (is_apic_register(name)) {
        if (!p->properties.apic_mode)
            return WHV_E_INVALID_VP_REGISTER_NAME;
        /* The names count as x2APIC's MSRs do, and those as the APIC's page in steps of 16. */
        u8 *in_page = (u8 *)s->lapic.regs + (name & 0xff) * 16;
        need(vp, part = LAPIC);
        move_bytes(in_page, &v->Reg128.Dword[0], 4, set);
        if (name == WHvX64RegisterApicIcr)
            move_bytes(in_page + 16, &v->Reg128.Dword[1], 4, set);
        s->changed |= set ? part : 0;
        return S_OK;
    }
    switch (name) {
    case WHvX64RegisterRax ... WHvX64RegisterRdi: {
        __u64 *order[] = {&r->rax, &r->rcx, &r->rdx, &r->rbx, &r->rsp, &r->rbp, &r->rsi, &r->rdi};
        part = REGS, at = order[name];
        break;
    }
    case WHvX64RegisterR8 ... WHvX64RegisterR15:
        part = REGS, at = &r->r8 + (name - WHvX64RegisterR8);
        break;
    case WHvX64RegisterRip:
        part = REGS, at = &r->rip;
        break;
    case WHvX64RegisterRflags:
        part = REGS, at = &r->rflags;
        break;
    case WHvX64RegisterEs ... WHvX64RegisterTr: {
        struct kvm_segment *order[] = {&t->es, &t->cs, &t->ss,  &t->ds,
                                       &t->fs, &t->gs, &t->ldt, &t->tr};
        need(vp, part = SREGS);
        if (set)
            segment_in(&v->Segment, order[name - WHvX64RegisterEs]);
        else
            segment_out(order[name - WHvX64RegisterEs], &v->Segment);
        break;
    }
    case WHvX64RegisterIdtr:
    case WHvX64RegisterGdtr: {
        struct kvm_dtable *table = name == WHvX64RegisterIdtr ? &t->idt : &t->gdt;
        need(vp, part = SREGS);
        move_bytes(&table->base, &v->Table.Base, 8, set);
        move_bytes(&table->limit, &v->Table.Limit, 2, set);
        break;
    }
    case WHvX64RegisterCr0 ... WHvX64RegisterCr8: {
        __u64 *order[] = {&t->cr0, &t->cr2, &t->cr3, &t->cr4, &t->cr8};
        part = SREGS, at = order[name - WHvX64RegisterCr0];
        break;
    }
    case WHvX64RegisterDr0 ... WHvX64RegisterDr3:
        part = DEBUG, at = &s->debug.db[name - WHvX64RegisterDr0];
        break;
    case WHvX64RegisterDr6:
        part = DEBUG, at = &s->debug.dr6;
        break;
    case WHvX64RegisterDr7:
        part = DEBUG, at = &s->debug.dr7;
        break;
    case WHvX64RegisterXCr0:
        part = XCRS, at = &s->xcrs.xcrs[0].value;
        break;
    case WHvX64RegisterXmm0 ... WHvX64RegisterXmmControlStatus:
        need(vp, part = XSAVE);
        move_fpu(s, name, v, set);
        break;
    case WHvX64RegisterEfer:
        if (set && v->Reg64 & ~EFER_BITS)
            return ERROR_HV_INVALID_PARAMETER;
        part = SREGS, at = &t->efer;
        break;
    case WHvX64RegisterApicBase:
        part = SREGS, at = &t->apic_base;
        break;
    case WHvX64RegisterInitialApicId:
        if (set && v->Reg64 != vp->index)
            return ERROR_HV_INVALID_PARAMETER;
        v->Reg64 = vp->index;
        return S_OK;
    case WHvRegisterPendingInterruption:
        need(vp, part = EVENTS);
        pending_interruption(s, v, set);
        break;
    case WHvRegisterPendingEvent:
        need(vp, (part = EVENTS) | SREGS);
        done = pending_event(vp, v, set);
        break;
    case WHvRegisterInterruptState:
        need(vp, part = EVENTS);
        if (set) {
            s->events.flags |= KVM_VCPUEVENT_VALID_SHADOW;
            s->events.interrupt.shadow = v->InterruptState.InterruptShadow
                                             ? KVM_X86_SHADOW_INT_STI | KVM_X86_SHADOW_INT_MOV_SS
                                             : 0;
            s->events.nmi.masked = v->InterruptState.NmiMasked;
        } else {
            v->InterruptState.InterruptShadow = s->events.interrupt.shadow != 0;
            v->InterruptState.NmiMasked = s->events.nmi.masked;
        }
        break;
    case WHvRegisterInternalActivityState:
        need(vp, part = ACTIVITY);
        done = internal_activity(s, v, set);
        break;
    case WHvX64RegisterDeliverabilityNotifications: {
        /* KVM tells when an interrupt can be delivered, whatever its priority, but not an NMI. */
        WHV_X64_DELIVERABILITY_NOTIFICATIONS_REGISTER r = v->DeliverabilityNotifications;
        if (set && r.NmiNotification)
            return ERROR_HV_INVALID_PARAMETER;
        move_bytes(&vp->notifications, &v->Reg64, 8, set);
        return S_OK;
    }
    case WHvX64RegisterPendingDebugException:
        if (set && v->Reg64 & ~0x1full)
            return ERROR_HV_INVALID_PARAMETER;
        move_bytes(&vp->debug_exception, &v->Reg64, 8, set);
        return S_OK;
    default: {
        if (set && name == WHvX64RegisterPat && !is_pat(v->Reg64)) /* not every KVM looks */
            return ERROR_HV_INVALID_PARAMETER;
        u32 msr = msr_of(name, &is_msr);
        return is_msr ? move_msr(p, vp, msr, v, set) : WHV_E_INVALID_VP_REGISTER_NAME;
    }
    }
    if (at) {
        need(vp, part);
        move_bytes(at, &v->Reg64, 8, set);
    }
    if (set && !done)
        s->changed |= part;
    return done;
}

static HRESULT move_all(WHV_PARTITION_HANDLE handle, u32 index, const WHV_REGISTER_NAME *names,
                        u32 count, value *values, int set)
{
    HRESULT done;
    partition *p;
    if ((u64)values % _Alignof(value)) /* it moves them by SSE instructions that want this */
        return STATUS_ACCESS_VIOLATION;
    processor *vp = enter(handle, index, &p, &done);
    if (!vp)
        return done;
    /* First of all, wherever it stands: asked for its activity KVM takes a latched INIT or SIPI,
       which sets all registers. */
    for (u32 i = 0; i < count; i++)
        if (names[i] == WHvRegisterInternalActivityState)
            need(vp, ACTIVITY);
    for (u32 i = 0; i < count && !done; i++) {
        if (!set)
            clear(&values[i], sizeof *values);
        done = move(p, vp, names[i], &values[i], set);
    }
    /* What came before a register that is refused has been set: nobody promises otherwise. */
    if (write_back(vp) && !done)
        done = ERROR_HV_INVALID_PARAMETER;
    leave(vp);
    return done;
}

EXPORT HRESULT WINAPI WHvGetVirtualProcessorRegisters(WHV_PARTITION_HANDLE handle, UINT32 index,
                                                      const WHV_REGISTER_NAME *names, UINT32 count,
                                                      WHV_REGISTER_VALUE *values)
{
    return move_all(handle, index, names, count, values, 0);
}

EXPORT HRESULT WINAPI WHvSetVirtualProcessorRegisters(WHV_PARTITION_HANDLE handle, UINT32 index,
                                                      const WHV_REGISTER_NAME *names, UINT32 count,
                                                      const WHV_REGISTER_VALUE *values)
{
    return move_all(handle, index, names, count, (WHV_REGISTER_VALUE *)values, 1);
}
