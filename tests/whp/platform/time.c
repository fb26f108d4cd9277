/* Time that stands still: the processors' time-stamp counters do not count it. */
#include "platform.h"

static u64 host_counter(void)
{
    u32 low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return low | (u64)high << 32;
}

/* Writing the counter itself would be taken for an attempt to synchronise it. */
static i64 move_offset(processor *vp, u64 back)
{
    u64 offset;
    struct kvm_device_attr attribute = {
        .group = KVM_VCPU_TSC_CTRL,
        .attr = KVM_VCPU_TSC_OFFSET,
        .addr = (u64)&offset,
    };
    if (ioctl(vp->fd, KVM_GET_DEVICE_ATTR, &attribute))
        return -1;
    offset -= back;
    return ioctl(vp->fd, KVM_SET_DEVICE_ATTR, &attribute);
}

i64 set_counter(processor *vp, u64 now, u64 wanted)
{
    return move_offset(vp, now - wanted);
}

i64 resume_time(partition *p)
{
    i64 failed = 0;
    acquire(&p->time);
    u64 passed = p->suspended_at ? host_counter() - p->suspended_at : 0;
    p->suspended_at = 0;
    for (u32 i = 0; passed && i < PROCESSORS; i++)
        if (p->processors[i].exists)
            failed |= move_offset(&p->processors[i], passed);
    release(&p->time);
    return failed;
}

/* No processor may be running; running one resumes it (WHvSuspendPartitionTime.md). */
EXPORT HRESULT WINAPI WHvSuspendPartitionTime(WHV_PARTITION_HANDLE handle)
{
    HRESULT error;
    partition *p = set_up_partition(handle, &error);
    if (!p)
        return error;
    for (u32 i = 0; i < PROCESSORS; i++)
        if (p->processors[i].exists && p->processors[i].thread)
            return WHV_E_INVALID_VP_STATE;
    acquire(&p->time);
    if (!p->suspended_at)
        p->suspended_at = host_counter();
    release(&p->time);
    return S_OK;
}

EXPORT HRESULT WINAPI WHvResumePartitionTime(WHV_PARTITION_HANDLE handle)
{
    HRESULT error;
    partition *p = set_up_partition(handle, &error);
    return !p ? error : resume_time(p) ? E_FAIL : S_OK;
}
