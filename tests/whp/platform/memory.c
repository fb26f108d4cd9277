/* Guest-physical memory: each mapping is a slot of KVM's, unless nobody may touch it. */
#include "platform.h"

static i64 set_slot(partition *p, u32 slot, u64 size)
{
    const mapping *m = &p->mappings[slot];
    struct kvm_userspace_memory_region region = {slot, 0, m->gpa, size, (u64)m->host};
    if (!(m->flags & (WHvMapGpaRangeFlagRead | WHvMapGpaRangeFlagWrite |
                      WHvMapGpaRangeFlagExecute)))
        return 0; /* every access is an exit */
    if (!(m->flags & WHvMapGpaRangeFlagWrite))
        region.flags |= KVM_MEM_READONLY;
    if (m->flags & WHvMapGpaRangeFlagTrackDirtyPages)
        region.flags |= KVM_MEM_LOG_DIRTY_PAGES;
    return ioctl(p->vm, KVM_SET_USER_MEMORY_REGION, &region);
}

static u64 bitmap_size(u64 size) { return (size / PAGE + 63) / 64 * 8; }

static mapping *add(partition *p, u64 gpa, u64 size, u8 *host, u32 flags)
{
    u32 slot = 0;
    while (slot < MAPPINGS && p->mappings[slot].size)
        slot++;
    if (slot == MAPPINGS)
        return 0;
    mapping *m = &p->mappings[slot];
    *m = (mapping){gpa, size, host, flags, 0};
    if (flags & WHvMapGpaRangeFlagTrackDirtyPages)
        m->dirty = map_pages(bitmap_size(size), -1);
    if (!set_slot(p, slot, size))
        return m;
    m->size = 0;
    return 0;
}

/* What KVM has logged since it was asked last is added to what nobody has asked about. */
static void gather_dirty(partition *p, mapping *m)
{
    u64 size = bitmap_size(m->size);
    u64 *logged = map_pages(size, -1);
    struct kvm_dirty_log log = {.slot = (u32)(m - p->mappings)};
    log.dirty_bitmap = logged;
    if (logged && !ioctl(p->vm, KVM_GET_DIRTY_LOG, &log))
        for (u64 i = 0; i < size / 8; i++)
            m->dirty[i] |= logged[i];
    if (logged)
        unmap_pages(logged, size);
}

static void drop(partition *p, mapping *m)
{
    set_slot(p, (u32)(m - p->mappings), 0);
    if (m->dirty)
        unmap_pages(m->dirty, bitmap_size(m->size));
    m->size = 0;
}

/* Take a range out of all mappings; what lies around it stays, and stays dirty. */
static i64 cut(partition *p, u64 gpa, u64 size, u64 *was_mapped)
{
    for (u32 slot = 0; slot < MAPPINGS; slot++) {
        mapping *m = &p->mappings[slot];
        mapping old = *m;
        u64 end = gpa + size, old_end = old.gpa + old.size;
        if (!old.size || old_end <= gpa || old.gpa >= end)
            continue;
        *was_mapped += smaller(old_end, end) - (old.gpa > gpa ? old.gpa : gpa);
        u64 *dirty = 0;
        if (old.dirty) {
            gather_dirty(p, m);
            dirty = old.dirty;
            m->dirty = 0;
        }
        drop(p, m);
        u64 parts[2][2] = {{old.gpa, gpa}, {end, old_end}};
        for (u32 i = 0; i < 2; i++) {
            u64 from = parts[i][0], to = parts[i][1];
            if (from >= to)
                continue;
            mapping *rest = add(p, from, to - from, old.host + (from - old.gpa), old.flags);
            if (!rest)
                return -1;
            for (u64 page = from; dirty && page < to; page += PAGE) {
                u64 before = (page - old.gpa) / PAGE, after = (page - from) / PAGE;
                rest->dirty[after / 64] |= (dirty[before / 64] >> before % 64 & 1) << after % 64;
            }
        }
        if (dirty)
            unmap_pages(dirty, bitmap_size(old.size));
    }
    return 0;
}

/*
 * One process's memory is mapped into one partition at a time: Windows' driver names a partition after
 * the process when its first memory is mapped, and frees the name when the last is unmapped. Hyperlight
 * and OpenVMM lend each further partition another process.
 */
static lock name_lock;
static partition *has_name;

static int take_name(partition *p)
{
    acquire(&name_lock);
    int is_mine = !has_name || has_name == p;
    if (is_mine)
        has_name = p;
    release(&name_lock);
    return is_mine;
}

static void free_name(partition *p)
{
    u32 slot = 0;
    while (slot < MAPPINGS && !p->mappings[slot].size)
        slot++;
    acquire(&name_lock);
    if (slot == MAPPINGS && has_name == p)
        has_name = 0;
    release(&name_lock);
}

EXPORT HRESULT WINAPI WHvMapGpaRange(WHV_PARTITION_HANDLE handle, VOID *source,
                                     WHV_GUEST_PHYSICAL_ADDRESS gpa, UINT64 size,
                                     WHV_MAP_GPA_RANGE_FLAGS flags)
{
    HRESULT error;
    partition *p = set_up_partition(handle, &error);
    if (!p)
        return error;
    u64 any = WHvMapGpaRangeFlagRead | WHvMapGpaRangeFlagWrite | WHvMapGpaRangeFlagExecute |
              WHvMapGpaRangeFlagTrackDirtyPages;
    if (!size || gpa + size < gpa || ((u64)source | gpa | size) % PAGE || flags & ~any)
        return E_INVALIDARG;
    if (!take_name(p))
        return ERROR_VID_PARTITION_ALREADY_EXISTS;
    acquire(&p->memory);
    u64 replaced = 0;
    i64 failed = cut(p, gpa, size, &replaced) || !add(p, gpa, size, source, flags);
    free_name(p);
    release(&p->memory);
    return failed ? E_INVALIDARG : S_OK;
}

EXPORT HRESULT WINAPI WHvUnmapGpaRange(WHV_PARTITION_HANDLE handle, WHV_GUEST_PHYSICAL_ADDRESS gpa,
                                       UINT64 size)
{
    HRESULT error;
    partition *p = set_up_partition(handle, &error);
    if (!p)
        return error;
    if (!size || gpa + size < gpa || (gpa | size) % PAGE)
        return E_INVALIDARG;
    acquire(&p->memory);
    u64 mapped = 0;
    i64 failed = cut(p, gpa, size, &mapped);
    free_name(p);
    release(&p->memory);
    return failed ? E_OUTOFMEMORY : mapped ? S_OK : WHV_E_GPA_RANGE_NOT_FOUND;
}

/* The mapping that has a page; the caller holds the lock. */
static mapping *find(partition *p, u64 gpa)
{
    for (u32 slot = 0; slot < MAPPINGS; slot++)
        if (gpa - p->mappings[slot].gpa < p->mappings[slot].size)
            return &p->mappings[slot];
    return 0;
}

EXPORT HRESULT WINAPI WHvQueryGpaRangeDirtyBitmap(WHV_PARTITION_HANDLE handle,
                                                  WHV_GUEST_PHYSICAL_ADDRESS gpa, UINT64 size,
                                                  UINT64 *bitmap, UINT32 bitmap_bytes)
{
    HRESULT error;
    partition *p = set_up_partition(handle, &error);
    if (!p)
        return error;
    /* No bitmap: what is dirty is only cleared (WHvQueryGpaRangeDirtyBitmap.md). */
    if (!size || (gpa | size) % PAGE || (u64)bitmap % 8 || (bitmap_bytes && !bitmap) ||
        (bitmap_bytes && bitmap_bytes < bitmap_size(size)))
        return E_INVALIDARG;
    acquire(&p->memory);
    mapping *m = 0;
    for (u64 page = gpa; page < gpa + size && !error; page += PAGE) {
        m = find(p, page);
        if (!m || !m->dirty)
            error = WHV_E_GPA_RANGE_NOT_FOUND;
    }
    for (u32 slot = 0; slot < MAPPINGS && !error; slot++) {
        m = &p->mappings[slot];
        if (m->size && m->gpa < gpa + size && gpa < m->gpa + m->size)
            gather_dirty(p, m);
    }
    if (bitmap_bytes && !error)
        clear(bitmap, bitmap_size(size));
    for (u64 page = 0; page < size / PAGE && !error; page++) {
        m = find(p, gpa + page * PAGE);
        u64 at = (gpa + page * PAGE - m->gpa) / PAGE;
        u64 bit = m->dirty[at / 64] >> at % 64 & 1;
        m->dirty[at / 64] &= ~(1ull << at % 64);
        if (bitmap_bytes)
            bitmap[page / 64] |= bit << page % 64;
    }
    release(&p->memory);
    return error;
}

u8 *host_address(partition *p, u64 gpa, u32 *flags)
{
    acquire(&p->memory);
    const mapping *m = find(p, gpa);
    u8 *host = m ? m->host + (gpa - m->gpa) : 0;
    if (m && flags)
        *flags = m->flags;
    release(&p->memory);
    return host;
}

int is_mapped(partition *p, u64 gpa) { return host_address(p, gpa, 0) != 0; }

void forget_memory(partition *p)
{
    for (u32 slot = 0; slot < MAPPINGS; slot++)
        if (p->mappings[slot].size) {
            if (p->mappings[slot].dirty)
                unmap_pages(p->mappings[slot].dirty, bitmap_size(p->mappings[slot].size));
            p->mappings[slot].size = 0;
        }
    free_name(p);
}

/* Up to 16 bytes, as an instruction's operand: WHvReadGpaRange.md. */
static HRESULT access(WHV_PARTITION_HANDLE handle, u32 index, u64 gpa,
                      WHV_ACCESS_GPA_CONTROLS controls, u8 *data, u32 size, u32 right)
{
    HRESULT error;
    partition *p;
    processor *vp = enter(handle, index, &p, &error);
    if (!vp)
        return error;
    leave(vp);
    u32 type = controls.CacheType;
    if (!size || size > WHV_READ_WRITE_GPA_RANGE_MAX_SIZE || type > 6 || type == 2 || type == 3 ||
        controls.InputVtl.AsUINT8 || controls.Reserved || controls.Reserved1)
        return E_INVALIDARG;
    for (u32 i = 0; i < size; i++) {
        u32 flags = 0;
        if (!host_address(p, gpa + i, &flags) || !(flags & right))
            return E_ACCESSDENIED;
    }
    for (u32 i = 0; i < size; i++) {
        u8 *host = host_address(p, gpa + i, 0);
        if (right == WHvMapGpaRangeFlagWrite)
            *host = data[i];
        else
            data[i] = *host;
    }
    return S_OK;
}

EXPORT HRESULT WINAPI WHvReadGpaRange(WHV_PARTITION_HANDLE handle, UINT32 index,
                                      WHV_GUEST_PHYSICAL_ADDRESS gpa,
                                      WHV_ACCESS_GPA_CONTROLS controls, PVOID data, UINT32 size)
{
    return access(handle, index, gpa, controls, data, size, WHvMapGpaRangeFlagRead);
}

EXPORT HRESULT WINAPI WHvWriteGpaRange(WHV_PARTITION_HANDLE handle, UINT32 index,
                                       WHV_GUEST_PHYSICAL_ADDRESS gpa,
                                       WHV_ACCESS_GPA_CONTROLS controls, const VOID *data,
                                       UINT32 size)
{
    return access(handle, index, gpa, controls, (u8 *)data, size, WHvMapGpaRangeFlagWrite);
}

/* Only what a VMM asks for to have pages before they are used: they are touched. */
EXPORT HRESULT WINAPI WHvAdviseGpaRange(WHV_PARTITION_HANDLE handle,
                                        const WHV_MEMORY_RANGE_ENTRY *ranges, UINT32 count,
                                        WHV_ADVISE_GPA_RANGE_CODE advice, const VOID *details,
                                        UINT32 size)
{
    HRESULT error;
    partition *p = set_up_partition(handle, &error);
    if (!p)
        return error;
    if (advice != WHvAdviseGpaRangeCodePopulate || !details ||
        size < sizeof(WHV_ADVISE_GPA_RANGE_POPULATE))
        return E_INVALIDARG;
    acquire(&p->memory);
    for (u32 i = 0; i < count && !error; i++)
        for (u64 at = 0; at < ranges[i].SizeInBytes && !error; at += PAGE) {
            u64 page = ranges[i].GuestAddress + at;
            mapping *m = find(p, page);
            if (m)
                __atomic_fetch_or(m->host + (page - m->gpa), 0, __ATOMIC_RELAXED);
            else
                error = WHV_E_GPA_RANGE_NOT_FOUND;
        }
    release(&p->memory);
    return error;
}
