/* What the guest's CPUID says: KVM's defaults, then the partition's lists, then what is certain. */
#include "platform.h"

enum { CPUID_PAGES = 4, ENTRIES = (CPUID_PAGES * PAGE - sizeof(struct kvm_cpuid2)) / 40 };

static struct kvm_cpuid_entry2 *add(struct kvm_cpuid2 *list, u32 leaf, u32 subleaf)
{
    if (list->nent == ENTRIES)
        return 0;
    struct kvm_cpuid_entry2 *e = &list->entries[list->nent++];
    clear(e, sizeof *e);
    e->function = leaf;
    e->index = subleaf;
    return e;
}

/* The entry for a leaf and subleaf, made if there is none. */
static struct kvm_cpuid_entry2 *entry(struct kvm_cpuid2 *list, u32 leaf, u32 subleaf, int specific)
{
    for (u32 i = 0; i < list->nent; i++) {
        struct kvm_cpuid_entry2 *e = &list->entries[i];
        if (e->function == leaf && e->index == subleaf)
            return e;
    }
    struct kvm_cpuid_entry2 *e = add(list, leaf, subleaf);
    if (e && specific)
        e->flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
    return e;
}

static void override(struct kvm_cpuid_entry2 *e, const WHV_X64_CPUID_RESULT2 *with)
{
    u32 *out = &e->eax;
    const u32 *value = &with->Output.Eax, *mask = &with->Mask.Eax;
    for (u32 k = 0; k < 4; k++)
        out[k] = (out[k] & ~mask[k]) | (value[k] & mask[k]);
}

/*
 * The Hyper-V leaves, which make KVM offer the enlightenments: TLFS, Feature and Interface
 * Discovery. Bits 2 to 11 of the features are EAX of 0x40000003, from AccessVpRunTimeReg on;
 * but for three of which there is no property.
 */
static void add_synthetic(struct kvm_cpuid2 *list, u64 features)
{
    WHV_SYNTHETIC_PROCESSOR_FEATURES f = {.AsUINT64 = features};
    u32 i = 0;
    while (i < list->nent) /* KVM's own leaves would show a guest what it is on */
        if (list->entries[i].function >> 8 == 0x400000)
            list->entries[i] = list->entries[--list->nent];
        else
            i++;
    if (!f.HypervisorPresent)
        return;
    entry(list, 1, 0, 0)->ecx |= 1u << 31;
    if (!f.Hv1)
        return;
    struct kvm_cpuid_entry2 *e = entry(list, 0x40000000, 0, 0);
    e->eax = 0x40000005;
    e->ebx = 0x7263694d, e->ecx = 0x666f736f, e->edx = 0x76482074; /* Microsoft Hv */
    entry(list, 0x40000001, 0, 0)->eax = 0x31237648;                 /* Hv#1 */
    entry(list, 0x40000002, 0, 0);
    e = entry(list, 0x40000003, 0, 0);
    e->eax = (features >> 2 & 0x7f) | f.AccessPartitionReferenceTsc << 9 |
             f.AccessFrequencyRegs << 11;
    e->edx = f.AccessFrequencyRegs << 8;
    entry(list, 0x40000004, 0, 0);
    entry(list, 0x40000005, 0, 0)->eax = PROCESSORS;
}

/* Change what an entry of the partition's lists is for; what no entry is there for is added. */
static void apply(struct kvm_cpuid2 *list, const WHV_X64_CPUID_RESULT2 *with, u32 index)
{
    if (with->Flags & WHvX64CpuidResult2FlagVpSpecific && with->VpIndex != index)
        return;
    struct kvm_cpuid_entry2 *e = 0;
    if (with->Flags & WHvX64CpuidResult2FlagSubleafSpecific)
        e = entry(list, with->Function, with->Index, 1);
    else {
        int found = 0;
        for (u32 i = 0; i < list->nent; i++)
            if (list->entries[i].function == with->Function) {
                override(&list->entries[i], with);
                found = 1;
            }
        e = found ? 0 : add(list, with->Function, 0);
    }
    if (e)
        override(e, with);
}

struct kvm_cpuid2 *partition_cpuid(partition *p, u32 index)
{
    const properties *from = &p->properties;
    struct kvm_cpuid2 *list = map_pages(CPUID_PAGES * PAGE, -1);
    if (!list)
        return 0;
    list->nent = ENTRIES;
    if (ioctl(p->kvm, KVM_GET_SUPPORTED_CPUID, list)) {
        free_cpuid(list);
        return 0;
    }
    add_synthetic(list, from->synthetic);
    for (u32 k = 0; k < 2; k++)
        for (u32 i = 0; i < from->cpuid[k].count; i++)
            apply(list, &from->cpuid[k].results[i], index);
    /* The processor's index is its APIC id (WHvCreateVirtualProcessor.md). */
    for (u32 i = 0; i < list->nent; i++) {
        struct kvm_cpuid_entry2 *e = &list->entries[i];
        if (e->function == 1)
            e->ebx = (e->ebx & 0xffffff) | index << 24;
        if (e->function == 0xb || e->function == 0x1f)
            e->edx = index;
    }
    return list;
}

void free_cpuid(struct kvm_cpuid2 *list)
{
    if (list)
        unmap_pages(list, CPUID_PAGES * PAGE);
}

/*
 * What a processor sees. KVM_GET_CPUID2 would tell as well, but a KVM in software mixes the host's
 * bits in. Of what follows the processor's state, OSXSAVE and the size of XSAVE's area are looked at:
 * for XCR0 in the standard format (subleaf 0) and, as no supervisor state is there, the compacted one.
 */
void find_cpuid(partition *p, processor *vp, u32 leaf, u32 subleaf, u32 out[4])
{
    struct kvm_cpuid2 *list = partition_cpuid(p, vp->index);
    out[0] = out[1] = out[2] = out[3] = 0;
    for (u32 i = 0; list && i < list->nent; i++) {
        const struct kvm_cpuid_entry2 *e = &list->entries[i];
        int any = !(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX);
        if (e->function == leaf && (any || e->index == subleaf))
            copy(out, &e->eax, 16);
    }
    if (leaf == 0xd && subleaf < 2) {
        need(vp, XCRS);
        out[1] = 576; /* the legacy region and the header: Intel SDM volume 1, 13.2 */
        for (u32 i = 0; list && i < list->nent; i++) {
            const struct kvm_cpuid_entry2 *e = &list->entries[i];
            int enabled = e->function == leaf && e->index > 1 && e->index < 63 &&
                          vp->state.xcrs.xcrs[0].value >> e->index & 1;
            u32 compacted = e->ecx & 2 ? (out[1] + 63) & ~63u : out[1];
            u32 end = (subleaf ? compacted : e->ebx) + e->eax;
            if (enabled && end > out[1])
                out[1] = end;
        }
    }
    free_cpuid(list);
    if (leaf == 1) {
        enum { OSXSAVE = 1 << 27, CR4_OSXSAVE = 1 << 18 };
        need(vp, SREGS);
        out[2] = (out[2] & ~OSXSAVE) | (vp->state.sregs.cr4 & CR4_OSXSAVE ? OSXSAVE : 0);
    }
}

EXPORT HRESULT WINAPI WHvGetVirtualProcessorCpuidOutput(WHV_PARTITION_HANDLE handle, UINT32 index,
                                                        UINT32 leaf, UINT32 subleaf,
                                                        WHV_CPUID_OUTPUT *output)
{
    HRESULT error;
    partition *p;
    processor *vp = enter(handle, index, &p, &error);
    if (!vp)
        return error;
    if (output)
        find_cpuid(p, vp, leaf, subleaf, &output->Eax);
    forget_state(vp);
    leave(vp);
    return output ? S_OK : E_POINTER;
}
