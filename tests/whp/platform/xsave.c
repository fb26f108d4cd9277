/* The XSAVE area in the compacted format: Intel SDM volume 1, 13.4.3. */
#include "platform.h"

enum { LEGACY = 512, HEADER = 64, XSTATE_BV = LEGACY, XCOMP_BV = LEGACY + 8 };
static const u64 COMPACTED = 1ull << 63;

typedef struct {
    u32 size, standard, compacted; /* bytes, and where they are in each format */
} component;

/* Where the components are that this processor's CPUID has; returns the area's size. */
static u32 lay_out(partition *p, processor *vp, component parts[63], u64 *supported)
{
    u32 leaf[4], end = LEGACY + HEADER;
    find_cpuid(p, vp, 0xd, 0, leaf);
    *supported = leaf[0] | (u64)leaf[3] << 32 | 3;
    for (u32 i = 2; i < 63; i++) {
        if (!(*supported >> i & 1))
            continue;
        find_cpuid(p, vp, 0xd, i, leaf);
        if (leaf[2] & 2) /* aligned */
            end = (end + 63) & ~63u;
        parts[i] = (component){leaf[0], leaf[1], end};
        end += leaf[0];
        if (parts[i].standard + parts[i].size > sizeof vp->state.xsave)
            *supported &= ~(1ull << i); /* beyond what KVM_GET_XSAVE returns */
    }
    return end;
}

/* Move between the two formats: the standard one, which KVM has, and the compacted one. */
static HRESULT move(partition *p, processor *vp, u8 *compacted, u32 size, u32 *written, int set)
{
    component parts[63];
    u64 supported;
    u32 needed = lay_out(p, vp, parts, &supported);
    u8 *standard = vp->state.xsave;
    if (written && !set)
        *written = needed;
    if (size < needed && !set)
        return WHV_E_INSUFFICIENT_BUFFER;
    if (set && (size < LEGACY + HEADER || !(*(u64 *)(compacted + XCOMP_BV) & COMPACTED)))
        return ERROR_HV_INVALID_PARAMETER;
    need(vp, XSAVE);
    if (!set) {
        clear(compacted, needed);
        copy(compacted, standard, LEGACY);
        *(u64 *)(compacted + XSTATE_BV) = *(u64 *)(standard + XSTATE_BV) & supported;
        *(u64 *)(compacted + XCOMP_BV) = COMPACTED | supported;
    } else {
        u64 present = *(u64 *)(compacted + XSTATE_BV), there = *(u64 *)(compacted + XCOMP_BV);
        if (present & ~there || (there & ~COMPACTED) != supported || size < needed)
            return ERROR_HV_INVALID_PARAMETER;
        copy(standard, compacted, LEGACY);
        clear(standard + LEGACY, HEADER);
        *(u64 *)(standard + XSTATE_BV) = present;
    }
    for (u32 i = 2; i < 63; i++)
        if (supported >> i & 1)
            copy(set ? standard + parts[i].standard : compacted + parts[i].compacted,
                 set ? compacted + parts[i].compacted : standard + parts[i].standard,
                 parts[i].size);
    if (!set)
        return S_OK;
    vp->state.changed = XSAVE;
    return write_back(vp) ? ERROR_HV_INVALID_PARAMETER : S_OK;
}

static HRESULT move_xsave(WHV_PARTITION_HANDLE handle, u32 index, void *area, u32 size,
                          u32 *written, int set)
{
    HRESULT error;
    partition *p;
    processor *vp = enter(handle, index, &p, &error);
    if (!vp)
        return error;
    error = move(p, vp, area, size, written, set);
    forget_state(vp);
    leave(vp);
    return error;
}

EXPORT HRESULT WINAPI WHvGetVirtualProcessorXsaveState(WHV_PARTITION_HANDLE handle, UINT32 index,
                                                       VOID *area, UINT32 size, UINT32 *written)
{
    return move_xsave(handle, index, area, size, written, 0);
}

EXPORT HRESULT WINAPI WHvSetVirtualProcessorXsaveState(WHV_PARTITION_HANDLE handle, UINT32 index,
                                                       const VOID *area, UINT32 size)
{
    return move_xsave(handle, index, (void *)area, size, 0, 1);
}

/* Both kinds of state by one function: WHvGetVirtualProcessorState.md. */
EXPORT HRESULT WINAPI WHvGetVirtualProcessorState(WHV_PARTITION_HANDLE handle, UINT32 index,
                                                  WHV_VIRTUAL_PROCESSOR_STATE_TYPE type,
                                                  VOID *buffer, UINT32 size, UINT32 *written)
{
    switch ((u32)type) {
    case WHvVirtualProcessorStateTypeInterruptControllerState2:
        return WHvGetVirtualProcessorInterruptControllerState2(handle, index, buffer, size, written);
    case WHvVirtualProcessorStateTypeXsaveState:
        return WHvGetVirtualProcessorXsaveState(handle, index, buffer, size, written);
    }
    return E_INVALIDARG;
}

EXPORT HRESULT WINAPI WHvSetVirtualProcessorState(WHV_PARTITION_HANDLE handle, UINT32 index,
                                                  WHV_VIRTUAL_PROCESSOR_STATE_TYPE type,
                                                  const VOID *buffer, UINT32 size)
{
    switch ((u32)type) {
    case WHvVirtualProcessorStateTypeInterruptControllerState2:
        return WHvSetVirtualProcessorInterruptControllerState2(handle, index, buffer, size);
    case WHvVirtualProcessorStateTypeXsaveState:
        return WHvSetVirtualProcessorXsaveState(handle, index, buffer, size);
    }
    return E_INVALIDARG;
}
