/* MSRs that the partition's properties take from KVM, or that KVM does not have. */
#include "platform.h"

enum { MSR_TSC = 0x10, MSR_APIC_BASE = 0x1b, MSR_UCODE_REV = 0x8b, MSR_MISC_ENABLE = 0x1a0 };

/* Which access the exit bitmap asks for (WHV_X64_MSR_EXIT_BITMAP), from its bit 1 on. */
static const struct {
    u32 msr;
    int write;
} BITMAP[] = {
    {MSR_TSC, 1}, {MSR_TSC, 0}, {MSR_APIC_BASE, 1}, {MSR_MISC_ENABLE, 0}, {MSR_UCODE_REV, 0},
};
enum { BITMAP_SIZE = sizeof BITMAP / sizeof *BITMAP };

u32 msr_action(partition *p, u32 msr, int write, int unimplemented)
{
    const properties *from = &p->properties;
    WHV_EXTENDED_VM_EXITS exits = {.AsUINT64 = from->extended_exits};
    WHV_X64_MSR_EXIT_BITMAP bitmap = {.AsUINT64 = from->msr_exits};
    for (u32 i = 0; i < from->msr_action_count; i++)
        if (from->msr_actions[i].Index == msr) {
            u8 action = write ? from->msr_actions[i].WriteAction : from->msr_actions[i].ReadAction;
            if (action)
                return action;
        }
    for (u32 i = 0; i < BITMAP_SIZE && exits.X64MsrExit; i++)
        if (from->msr_exits >> (i + 1) & 1 && BITMAP[i].msr == msr && BITMAP[i].write == write)
            return WHvMsrActionExit;
    if (!unimplemented)
        return WHvMsrActionArchitectureDefault;
    /* Before there was a bitmap, X64MsrExit alone meant every MSR that is not handled. */
    if (exits.X64MsrExit && (bitmap.UnhandledMsrs || !bitmap.AsUINT64))
        return WHvMsrActionExit;
    return from->unimplemented_msr;
}

static void deny(struct kvm_msr_filter *filter, u8 *bits, u32 *count, u32 msr, int write)
{
    bits[*count] = 0; /* one MSR, not allowed */
    filter->ranges[*count] = (struct kvm_msr_filter_range){
        .flags = write ? KVM_MSR_FILTER_WRITE : KVM_MSR_FILTER_READ,
        .nmsrs = 1,
        .base = msr,
        .bitmap = &bits[*count],
    };
    ++*count;
}

HRESULT filter_msrs(partition *p)
{
    struct kvm_msr_filter filter;
    struct kvm_enable_cap cap;
    u8 bits[KVM_MSR_FILTER_MAX_RANGES];
    u32 count = 0;
    const properties *from = &p->properties;
    clear(&filter, sizeof filter);
    clear(&cap, sizeof cap);
    cap.cap = KVM_CAP_X86_USER_SPACE_MSR;
    cap.args[0] = KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_FILTER;
    if (ioctl(p->vm, KVM_ENABLE_CAP, &cap))
        return WHV_E_UNSUPPORTED_HYPERVISOR_CONFIG;
    for (u32 i = 0; i < BITMAP_SIZE; i++)
        if (from->extended_exits & 2 && from->msr_exits >> (i + 1) & 1)
            deny(&filter, bits, &count, BITMAP[i].msr, BITMAP[i].write);
    for (u32 i = 0; i < from->msr_action_count; i++)
        for (int write = 0; write < 2; write++) {
            const WHV_MSR_ACTION_ENTRY *e = &from->msr_actions[i];
            if (!(write ? e->WriteAction : e->ReadAction))
                continue;
            if (count == KVM_MSR_FILTER_MAX_RANGES)
                return E_INVALIDARG; /* KVM's limit, which is lower than Microsoft's */
            deny(&filter, bits, &count, e->Index, write);
        }
    filter.flags = KVM_MSR_FILTER_DEFAULT_ALLOW;
    return ioctl(p->vm, KVM_X86_SET_MSR_FILTER, &filter) ? E_INVALIDARG : S_OK;
}
