/* Partitions and their properties, and the virtual processors in them. */
#include "platform.h"

enum { PARTITIONS = 64 };
static partition *partitions[PARTITIONS];
static lock table;

/* The size of a property's value, or of an element of a list; 0: no such property here. */
static const struct {
    u32 code;
    u8 size, is_list, any_time, not_readable;
} PROPERTIES[] = {
    /* The four that change after WHvSetupPartition: WHvSetPartitionProperty.md, Return Value. */
    {WHvPartitionPropertyCodeExtendedVmExits, 8, 0, 1, 0},
    {WHvPartitionPropertyCodeExceptionExitBitmap, 8, 0, 1, 0},
    {WHvPartitionPropertyCodeX64MsrExitBitmap, 8, 0, 1, 0},
    {WHvPartitionPropertyCodeCpuidExitList, 4, 1, 1, 1},
    {WHvPartitionPropertyCodeCpuidResultList, 32, 1, 0, 1},
    {WHvPartitionPropertyCodeCpuidResultList2, 48, 1, 0, 1},
    {WHvPartitionPropertyCodeMsrActionList, 8, 1, 0, 1},
    {WHvPartitionPropertyCodeUnimplementedMsrAction, 4, 0, 0, 0},
    {WHvPartitionPropertyCodeLocalApicEmulationMode, 4, 0, 0, 0},
    {WHvPartitionPropertyCodeSyntheticProcessorFeaturesBanks, 16, 0, 0, 0},
    {WHvPartitionPropertyCodeSeparateSecurityDomain, 4, 0, 0, 0},
    {WHvPartitionPropertyCodeProcessorCount, 4, 0, 0, 0},
};
enum { PROPERTY_COUNT = sizeof PROPERTIES / sizeof *PROPERTIES };

static u32 property_index(u32 code)
{
    u32 i = 0;
    while (i < PROPERTY_COUNT && PROPERTIES[i].code != code)
        i++;
    return lacks('p', code) ? PROPERTY_COUNT : i;
}

partition *find_partition(WHV_PARTITION_HANDLE handle)
{
    for (u32 i = 0; i < PARTITIONS; i++)
        if (handle && partitions[i] == handle)
            return handle;
    return 0;
}

partition *set_up_partition(WHV_PARTITION_HANDLE handle, HRESULT *error)
{
    partition *p = find_partition(handle);
    *error = p && p->set_up ? S_OK : E_INVALIDARG;
    return *error ? 0 : p;
}

EXPORT HRESULT WINAPI WHvCreatePartition(WHV_PARTITION_HANDLE *handle)
{
    i64 kvm = system_call(SYS_open, (i64) "/dev/kvm", 02000002 /* O_RDWR | O_CLOEXEC */, 0, 0, 0, 0);
    if (kvm < 0)
        return ERROR_HV_NOT_PRESENT;
    partition *p = map_pages(sizeof *p, -1);
    acquire(&table);
    u32 i = 0;
    while (i < PARTITIONS && partitions[i])
        i++;
    if (p && i < PARTITIONS)
        partitions[i] = p;
    release(&table);
    if (!p || i == PARTITIONS) {
        if (p)
            unmap_pages(p, sizeof *p);
        close_file((int)kvm);
        return E_OUTOFMEMORY;
    }
    p->kvm = (int)kvm;
    *handle = p;
    return S_OK;
}

static HRESULT set_list(properties *to, u32 code, const void *from, u32 count)
{
    if (count > LIST)
        return E_INVALIDARG;
    switch (code) {
    case WHvPartitionPropertyCodeCpuidExitList:
        copy(to->cpuid_exits, from, count * sizeof *to->cpuid_exits);
        to->cpuid_exit_count = count;
        return S_OK;
    case WHvPartitionPropertyCodeMsrActionList:
        copy(to->msr_actions, from, count * sizeof *to->msr_actions);
        to->msr_action_count = count;
        return S_OK;
    }
    int newer = code == WHvPartitionPropertyCodeCpuidResultList2;
    WHV_X64_CPUID_RESULT2 *next = to->cpuid[newer].results;
    to->cpuid[newer].count = count;
    if (newer)
        copy(next, from, count * sizeof *next);
    else
        for (u32 i = 0; i < count; i++) {
            const WHV_X64_CPUID_RESULT *old = (const WHV_X64_CPUID_RESULT *)from + i;
            clear(&next[i], sizeof *next);
            next[i].Function = old->Function;
            copy(&next[i].Output, &old->Eax, sizeof next->Output);
            for (u32 k = 0; k < 4; k++)
                ((u32 *)&next[i].Mask)[k] = ~0u;
        }
    return S_OK;
}

static HRESULT set_property(partition *p, u32 code, u64 value, const WHV_PARTITION_PROPERTY *whole)
{
    properties *to = &p->properties;
    u64 allowed = ~0ull, *at = 0;
    switch (code) {
    case WHvPartitionPropertyCodeExtendedVmExits:
        at = &to->extended_exits, allowed = EXTENDED_EXITS;
        break;
    case WHvPartitionPropertyCodeExceptionExitBitmap:
        at = &to->exception_exits, allowed = EXCEPTION_EXITS;
        break;
    case WHvPartitionPropertyCodeX64MsrExitBitmap:
        at = &to->msr_exits, allowed = MSR_EXITS;
        break;
    case WHvPartitionPropertyCodeSyntheticProcessorFeaturesBanks:
        if (whole->SyntheticProcessorFeaturesBanks.BanksCount != 1)
            return E_INVALIDARG;
        value = whole->SyntheticProcessorFeaturesBanks.AsUINT64[0];
        at = &to->synthetic, allowed = synthetic_features(p->kvm);
        break;
    case WHvPartitionPropertyCodeUnimplementedMsrAction:
        if (value > WHvMsrActionExit)
            return E_INVALIDARG;
        to->unimplemented_msr = (u32)value;
        return S_OK;
    case WHvPartitionPropertyCodeLocalApicEmulationMode:
        if (value > WHvX64LocalApicEmulationModeX2Apic)
            return E_INVALIDARG;
        to->apic_mode = (u32)value;
        return S_OK;
    case WHvPartitionPropertyCodeSeparateSecurityDomain: /* how it is scheduled: nothing here */
        to->separate = value != 0;
        return S_OK;
    case WHvPartitionPropertyCodeProcessorCount:
        if (!value || value > PROCESSORS)
            return E_INVALIDARG;
        to->count = (u32)value;
        return S_OK;
    }
    if (value & ~allowed)
        return E_INVALIDARG;
    *at = value;
    return S_OK;
}

EXPORT HRESULT WINAPI WHvSetPartitionProperty(WHV_PARTITION_HANDLE handle,
                                              WHV_PARTITION_PROPERTY_CODE code, const VOID *buffer,
                                              UINT32 size)
{
    partition *p = find_partition(handle);
    u32 i = property_index(code);
    if (!p || !buffer)
        return E_INVALIDARG;
    if (i == PROPERTY_COUNT)
        return WHV_E_UNKNOWN_PROPERTY;
    if (p->set_up && !PROPERTIES[i].any_time)
        return E_INVALIDARG;
    if (PROPERTIES[i].is_list ? size % PROPERTIES[i].size : size != PROPERTIES[i].size)
        return E_INVALIDARG;
    HRESULT done;
    if (PROPERTIES[i].is_list)
        done = set_list(&p->properties, code, buffer, size / PROPERTIES[i].size);
    else {
        u64 value = 0;
        copy(&value, buffer, smaller(size, sizeof value));
        done = set_property(p, code, value, buffer);
    }
    return !done && p->set_up ? filter_msrs(p) : done;
}

EXPORT HRESULT WINAPI WHvGetPartitionProperty(WHV_PARTITION_HANDLE handle,
                                              WHV_PARTITION_PROPERTY_CODE code, VOID *buffer,
                                              UINT32 size, UINT32 *written)
{
    partition *p = find_partition(handle);
    u32 i = property_index(code);
    WHV_PARTITION_PROPERTY value;
    if (!p)
        return E_INVALIDARG;
    if (i == PROPERTY_COUNT)
        return WHV_E_UNKNOWN_PROPERTY;
    if (PROPERTIES[i].not_readable)
        return E_NOT_SUPPORTED;
    clear(&value, sizeof value);
    const properties *from = &p->properties;
    switch ((u32)code) {
    case WHvPartitionPropertyCodeExtendedVmExits:
        value.ExtendedVmExits.AsUINT64 = from->extended_exits;
        break;
    case WHvPartitionPropertyCodeExceptionExitBitmap:
        value.ExceptionExitBitmap = from->exception_exits;
        break;
    case WHvPartitionPropertyCodeX64MsrExitBitmap:
        value.X64MsrExitBitmap.AsUINT64 = from->msr_exits;
        break;
    case WHvPartitionPropertyCodeUnimplementedMsrAction:
        value.UnimplementedMsrAction = from->unimplemented_msr;
        break;
    case WHvPartitionPropertyCodeLocalApicEmulationMode:
        value.LocalApicEmulationMode = from->apic_mode;
        break;
    case WHvPartitionPropertyCodeSyntheticProcessorFeaturesBanks:
        value.SyntheticProcessorFeaturesBanks.BanksCount = 1;
        value.SyntheticProcessorFeaturesBanks.AsUINT64[0] = from->synthetic;
        break;
    case WHvPartitionPropertyCodeSeparateSecurityDomain:
        value.SeparateSecurityDomain = from->separate;
        break;
    case WHvPartitionPropertyCodeProcessorCount:
        value.ProcessorCount = from->count;
        break;
    }
    if (written)
        *written = PROPERTIES[i].size;
    if (size < PROPERTIES[i].size)
        return WHV_E_INSUFFICIENT_BUFFER;
    copy(buffer, &value, PROPERTIES[i].size);
    return S_OK;
}

static i64 enable(int vm, u32 capability, u64 first)
{
    struct kvm_enable_cap cap;
    clear(&cap, sizeof cap);
    cap.cap = capability;
    cap.args[0] = first;
    return ioctl(vm, KVM_ENABLE_CAP, &cap);
}

EXPORT HRESULT WINAPI WHvSetupPartition(WHV_PARTITION_HANDLE handle)
{
    enum { IOAPIC_PINS = 24, BELOW_FIRMWARE = 0xfffbd000 };
    partition *p = find_partition(handle);
    if (!p || p->set_up)
        return E_INVALIDARG;
    if (!p->properties.count)
        return WHV_E_INVALID_PARTITION_CONFIG;
    i64 vm = ioctl(p->kvm, KVM_CREATE_VM, 0);
    if (vm < 0)
        return E_FAIL;
    p->vm = (int)vm;
    p->run_size = (u32)ioctl(p->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    /* Intel's KVM wants three pages of its own for guests without paging; AMD's ignores them. */
    ioctl(p->vm, KVM_SET_TSS_ADDR, (void *)(u64)BELOW_FIRMWARE);
    /* Otherwise an OUT to port 0x7e is stepped over before its exit. */
    enable(p->vm, KVM_CAP_DISABLE_QUIRKS2, KVM_X86_QUIRK_OUT_7E_INC_RIP);
    if (p->properties.apic_mode && enable(p->vm, KVM_CAP_SPLIT_IRQCHIP, IOAPIC_PINS) < 0)
        return WHV_E_UNSUPPORTED_HYPERVISOR_CONFIG;
    HRESULT done = filter_msrs(p);
    if (done)
        return done;
    p->set_up = 1;
    return S_OK;
}

/* The processor of this index, if there is one. */
static processor *find_processor(WHV_PARTITION_HANDLE handle, UINT32 index, HRESULT *error)
{
    partition *p = set_up_partition(handle, error);
    if (!p)
        return 0;
    if (index < PROCESSORS && p->processors[index].exists)
        return &p->processors[index];
    *error = WHV_E_VP_DOES_NOT_EXIST;
    return 0;
}

processor *enter(WHV_PARTITION_HANDLE handle, UINT32 index, partition **of, HRESULT *error)
{
    processor *vp = find_processor(handle, index, error);
    if (vp && __atomic_exchange_n(&vp->running.held, 1, __ATOMIC_ACQUIRE)) {
        *error = WHV_E_INVALID_VP_STATE;
        return 0;
    }
    *of = handle;
    return vp;
}

void leave(processor *vp) { release(&vp->running); }

EXPORT HRESULT WINAPI WHvCreateVirtualProcessor(WHV_PARTITION_HANDLE handle, UINT32 index,
                                                UINT32 flags)
{
    HRESULT error;
    partition *p = set_up_partition(handle, &error);
    if (!p)
        return error;
    if (flags || index >= p->properties.count)
        return E_INVALIDARG;
    processor *vp = &p->processors[index];
    if (vp->exists)
        return WHV_E_VP_ALREADY_EXISTS;
    i64 fd = ioctl(p->vm, KVM_CREATE_VCPU, (void *)(u64)index);
    if (fd < 0) /* KVM keeps a deleted vCPU's id until the machine is gone */
        return E_FAIL;
    vp->fd = (int)fd;
    vp->index = index;
    vp->run = map_pages(p->run_size, vp->fd);
    struct kvm_cpuid2 *cpuid = partition_cpuid(p, index);
    i64 failed = cpuid ? ioctl(vp->fd, KVM_SET_CPUID2, cpuid) : -1;
    free_cpuid(cpuid);
    if (!vp->run || failed) {
        close_file(vp->fd);
        return E_FAIL;
    }
    forget_state(vp);
    vp->exists = 1;
    return S_OK;
}

EXPORT HRESULT WINAPI WHvCreateVirtualProcessor2(WHV_PARTITION_HANDLE handle, UINT32 index,
                                                 const WHV_VIRTUAL_PROCESSOR_PROPERTY *properties,
                                                 UINT32 count)
{
    /* The only property is a NUMA node, and there is only one: WHvCreateVirtualProcessor2.md. */
    for (u32 i = 0; i < count; i++)
        if (properties[i].PropertyCode != WHvVirtualProcessorPropertyCodeNumaNode ||
            properties[i].NumaNode)
            return E_INVALIDARG;
    return WHvCreateVirtualProcessor(handle, index, 0);
}

EXPORT HRESULT WINAPI WHvDeleteVirtualProcessor(WHV_PARTITION_HANDLE handle, UINT32 index)
{
    HRESULT error;
    partition *p;
    processor *vp = enter(handle, index, &p, &error);
    if (!vp)
        return error;
    unmap_pages(vp->run, p->run_size);
    close_file(vp->fd);
    clear(vp, sizeof *vp);
    return S_OK;
}

EXPORT HRESULT WINAPI WHvDeletePartition(WHV_PARTITION_HANDLE handle)
{
    partition *p = find_partition(handle);
    if (!p)
        return E_INVALIDARG;
    for (u32 i = 0; i < PROCESSORS; i++)
        WHvDeleteVirtualProcessor(handle, i);
    acquire(&table);
    for (u32 i = 0; i < PARTITIONS; i++)
        if (partitions[i] == p)
            partitions[i] = 0;
    release(&table);
    forget_memory(p);
    if (p->vm)
        close_file(p->vm);
    close_file(p->kvm);
    unmap_pages(p, sizeof *p);
    return S_OK;
}

EXPORT HRESULT WINAPI WHvCancelRunVirtualProcessor(WHV_PARTITION_HANDLE handle, UINT32 index,
                                                   UINT32 flags)
{
    HRESULT error;
    processor *vp = find_processor(handle, index, &error);
    if (!vp)
        return error;
    if (flags)
        return E_INVALIDARG;
    __atomic_store_n(&vp->cancelled, 1, __ATOMIC_SEQ_CST);
    acquire(&vp->kicking);
    if (vp->thread) {
        vp->run->immediate_exit = 1;
        i64 process = system_call(SYS_getpid, 0, 0, 0, 0, 0, 0);
        system_call(SYS_tgkill, process, vp->thread, KICK_SIGNAL, 0, 0, 0);
    }
    release(&vp->kicking);
    return S_OK;
}
