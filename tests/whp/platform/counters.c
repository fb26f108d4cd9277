/* What is counted: memory that is mapped; time in runs, and exits by their reasons. */
#include "platform.h"

static struct WHV_PROCESSOR_INTERCEPT_COUNTER *
counter_of(struct WHV_PROCESSOR_INTERCEPT_COUNTERS *all, u32 reason)
{
    switch (reason) {
    case WHvRunVpExitReasonX64IoPortAccess:
        return &all->IoInstructions;
    case WHvRunVpExitReasonX64Halt:
        return &all->HaltInstructions;
    case WHvRunVpExitReasonX64Cpuid:
        return &all->CpuidInstructions;
    case WHvRunVpExitReasonX64MsrAccess:
        return &all->MsrAccesses;
    case WHvRunVpExitReasonX64InterruptWindow:
        return &all->PendingInterrupts;
    case WHvRunVpExitReasonMemoryAccess:
        return &all->NestedPageFaultIntercepts;
    }
    return &all->OtherIntercepts;
}

u64 nanoseconds(void)
{
    enum { SYS_clock_gettime = 228, CLOCK_MONOTONIC = 1 };
    i64 now[2] = {0, 0};
    system_call(SYS_clock_gettime, CLOCK_MONOTONIC, (i64)now, 0, 0, 0, 0);
    return (u64)now[0] * 1000000000 + (u64)now[1];
}

void count_exit(processor *vp, u32 reason, u64 since)
{
    __atomic_fetch_add(&vp->ran, nanoseconds() - since, __ATOMIC_RELAXED);
    __atomic_fetch_add(&counter_of(&vp->intercepts, reason)->Count, 1, __ATOMIC_RELAXED);
}

static HRESULT give(const void *from, u32 needed, void *buffer, u32 size, u32 *written)
{
    if (written)
        *written = needed;
    if (size < needed)
        return WHV_E_INSUFFICIENT_BUFFER;
    copy(buffer, from, needed);
    return S_OK;
}

EXPORT HRESULT WINAPI WHvGetPartitionCounters(WHV_PARTITION_HANDLE handle,
                                              WHV_PARTITION_COUNTER_SET set, VOID *buffer,
                                              UINT32 size, UINT32 *written)
{
    HRESULT error;
    partition *p = set_up_partition(handle, &error);
    if (!p)
        return error;
    if (set != WHvPartitionCounterSetMemory)
        return E_INVALIDARG;
    WHV_PARTITION_MEMORY_COUNTERS memory = {0};
    acquire(&p->memory);
    for (u32 i = 0; i < MAPPINGS; i++)
        memory.Mapped4KPageCount += p->mappings[i].size / PAGE;
    release(&p->memory);
    return give(&memory, sizeof memory, buffer, size, written);
}

/* Also while the processor runs. */
EXPORT HRESULT WINAPI WHvGetVirtualProcessorCounters(WHV_PARTITION_HANDLE handle, UINT32 index,
                                                     WHV_PROCESSOR_COUNTER_SET set, VOID *buffer,
                                                     UINT32 size, UINT32 *written)
{
    HRESULT error;
    partition *p = set_up_partition(handle, &error);
    if (!p)
        return error;
    if (index >= PROCESSORS || !p->processors[index].exists)
        return WHV_E_VP_DOES_NOT_EXIST;
    const processor *vp = &p->processors[index];
    WHV_PROCESSOR_RUNTIME_COUNTERS runtime = {.TotalRuntime100ns = vp->ran / 100};
    switch (set) {
    case WHvProcessorCounterSetRuntime:
        return give(&runtime, sizeof runtime, buffer, size, written);
    case WHvProcessorCounterSetIntercepts:
        return give(&vp->intercepts, sizeof vp->intercepts, buffer, size, written);
    default:
        return E_INVALIDARG;
    }
}
