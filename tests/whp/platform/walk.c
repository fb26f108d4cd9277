/* From guest-virtual to guest-physical addresses, by the tables that the processor uses. */
#include "platform.h"

/*
 * KVM_TRANSLATE tells neither rights nor reasons, so the tables are walked here: Intel SDM volume 3,
 * chapter 4; AMD APM volume 2, chapter 5. PAE's page directory pointers are read from memory like
 * the other entries.
 */
WHV_TRANSLATE_GVA_RESULT_CODE walk(partition *p, state *s, u64 gva, u32 flags, u64 *gpa)
{
    enum { PRESENT = 1, WRITABLE = 2, USER = 4, ACCESSED = 0x20, DIRTY = 0x40, LARGE = 0x80 };
    enum { CR4_PSE = 1 << 4, CR4_PAE = 1 << 5, CR4_LA57 = 1 << 12, CR4_SMEP = 1 << 20 };
    enum { CR4_SMAP = 1 << 21, CR0_WP = 1 << 16, EFER_LMA = 1 << 10, EFER_NX = 1 << 11 };
    const u64 ADDRESS = 0x000ffffffffff000ull, NO_EXECUTE = 1ull << 63;
    const struct kvm_sregs *r = &s->sregs;
    int levels = 0, wide = !!(r->cr4 & CR4_PAE);
    if (r->cr0 >> 31)
        levels = r->efer & EFER_LMA ? (r->cr4 & CR4_LA57 ? 5 : 4) : wide ? 3 : 2;
    if (levels < 4)
        gva &= 0xffffffff;
    else if ((i64)(gva << (64 - 12 - 9 * levels)) >> (64 - 12 - 9 * levels) != (i64)gva)
        return WHvTranslateGvaResultPageNotPresent; /* not canonical */
    u64 table = levels == 3 ? r->cr3 & 0xffffffe0 : r->cr3 & ADDRESS, rights = WRITABLE | USER;
    u64 *entries[5], size = 1, page = gva;
    int used = 0, forbidden = 0;
    for (int level = levels; level > 0; level--) {
        int bits = wide ? 9 : 10, shift = 12 + bits * (level - 1);
        u64 index = gva >> shift & ((1u << (levels == 3 && level == 3 ? 2 : bits)) - 1);
        u8 *host = host_address(p, table + index * (wide ? 8 : 4), 0);
        if (!host)
            return WHvTranslateGvaResultGpaUnmapped;
        u64 entry = wide ? *(u64 *)host : *(u32 *)host;
        if (!(entry & PRESENT))
            return WHvTranslateGvaResultPageNotPresent;
        int is_pointer = levels == 3 && level == 3; /* of PAE: no rights, no accessed bit */
        if (!is_pointer) {
            rights &= entry;
            forbidden |= (entry & NO_EXECUTE) && wide;
            entries[used++] = (u64 *)host;
        }
        int large = !is_pointer && entry & LARGE && (wide ? level == 2 || level == 3
                                                         : level == 2 && r->cr4 & CR4_PSE);
        size = 1ull << shift;
        table = wide ? entry & ADDRESS : entry & 0xfffff000;
        if (large && !wide) /* 4 MiB: bits 32 to 39 are in bits 13 to 20 */
            table = (entry & 0xffc00000) | (entry & 0x1fe000) << 19;
        if (large || level == 1) {
            page = (table & ~(size - 1)) | (gva & (size - 1));
            break;
        }
    }
    int user = s->sregs.ss.dpl == 3 && !(flags & WHvTranslateGvaFlagPrivilegeExempt);
    int writes = !!(flags & WHvTranslateGvaFlagValidateWrite);
    int executes = !!(flags & WHvTranslateGvaFlagValidateExecute);
    int checked = flags & (WHvTranslateGvaFlagValidateRead | WHvTranslateGvaFlagValidateWrite |
                           WHvTranslateGvaFlagValidateExecute);
    if (levels && checked) {
        if (user && !(rights & USER))
            return WHvTranslateGvaResultPrivilegeViolation;
        if (writes && !(rights & WRITABLE) && (user || r->cr0 & CR0_WP))
            return WHvTranslateGvaResultPrivilegeViolation;
        if (executes && forbidden && r->efer & EFER_NX)
            return WHvTranslateGvaResultPrivilegeViolation;
        if (executes && !user && rights & USER && r->cr4 & CR4_SMEP)
            return WHvTranslateGvaResultPrivilegeViolation;
        int data = !executes && !user && rights & USER && r->cr4 & CR4_SMAP;
        if (data && flags & WHvTranslateGvaFlagEnforceSmap)
            return WHvTranslateGvaResultPrivilegeViolation;
    }
    if (flags & WHvTranslateGvaFlagSetPageTableBits)
        for (int i = 0; i < used; i++)
            *(u8 *)entries[i] |= ACCESSED | (writes && i == used - 1 ? DIRTY : 0);
    *gpa = page;
    u32 access = 0;
    if (!host_address(p, page, &access))
        return WHvTranslateGvaResultGpaUnmapped;
    if (!(access & WHvMapGpaRangeFlagRead))
        return WHvTranslateGvaResultGpaNoReadAccess;
    if (writes && !(access & WHvMapGpaRangeFlagWrite))
        return WHvTranslateGvaResultGpaNoWriteAccess;
    return WHvTranslateGvaResultSuccess;
}

u32 read_linear(partition *p, state *s, u64 address, void *to, u32 size)
{
    for (u32 done = 0; done < size; done++) {
        u64 gpa;
        if (walk(p, s, address + done, 0, &gpa))
            return done;
        ((u8 *)to)[done] = *host_address(p, gpa, 0);
    }
    return size;
}

u32 write_linear(partition *p, state *s, u64 address, const void *from, u32 size)
{
    for (u32 done = 0; done < size; done++) {
        u64 gpa;
        if (walk(p, s, address + done, 0, &gpa))
            return done;
        *host_address(p, gpa, 0) = ((const u8 *)from)[done];
    }
    return size;
}

/*
 * The address returned is the page's, although the page calls it the physical address: VMMs found
 * no offset in it (whpx_translate_gva_to_gpa of a QEMU with a decoder of its own), and it is a
 * page's number that the hypercall below it returns (TLFS, HvCallTranslateVirtualAddress).
 */
EXPORT HRESULT WINAPI WHvTranslateGva(WHV_PARTITION_HANDLE handle, UINT32 index,
                                      WHV_GUEST_VIRTUAL_ADDRESS gva, WHV_TRANSLATE_GVA_FLAGS flags,
                                      WHV_TRANSLATE_GVA_RESULT *result,
                                      WHV_GUEST_PHYSICAL_ADDRESS *gpa)
{
    HRESULT error;
    partition *p;
    processor *vp = enter(handle, index, &p, &error);
    if (!vp)
        return error;
    need(vp, SREGS);
    clear(result, sizeof *result);
    u64 found = 0;
    result->ResultCode = walk(p, &vp->state, gva, flags, &found);
    *gpa = found & ~(u64)(PAGE - 1);
    forget_state(vp);
    leave(vp);
    return S_OK;
}
