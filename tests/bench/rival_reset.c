/*
 * A fuzzer's loop in C: reset a machine to what it was, and run it until it writes to a port.
 *
 * It makes the calls that vm.reset_to() makes, and leaves the same state: registers through the page
 * that KVM_RUN reads, MSRs compared, pages from the dirty ring.
 */

#include "rival.h"

enum {
    SIZE = 64 << 20,
    RING = 16384, /* entries */
    PAGE = 4096,
    CODE_AT = 0x1000,
    DATA_AT = 0x100000,
};

struct reset_machine {
    int vm, vcpu;
    struct kvm_run *run;
    uint8_t *memory, *image;
    struct kvm_dirty_gfn *ring;
    uint32_t at;
    struct kvm_sync_regs regs;
    struct kvm_xcrs xcrs;
    struct kvm_debugregs debugregs;
    uint8_t xsave[4096];
    struct msr_image msrs[MSR_IMAGES], present;
};

static void write_guest(uint8_t *memory, uint32_t pages)
{
    uint8_t code[] = {
        0xb9, 0, 0, 0, 0,       /* mov ecx, pages */
        0xbf, 0, 0, 0, 0,       /* mov edi, DATA_AT */
        0xff, 0x07,             /* page: inc dword ptr [edi] */
        0x81, 0xc7, 0, 0x10, 0, 0, /* add edi, PAGE */
        0xe2, 0xf6,             /* loop page */
        0xe6, 0x10,             /* out 0x10, al */
    };
    uint32_t data = DATA_AT;
    memcpy(code + 1, &pages, sizeof pages);
    memcpy(code + 6, &data, sizeof data);
    memcpy(memory + CODE_AT, code, sizeof code);
}

static struct reset_machine *new_reset_machine(uint32_t pages)
{
    struct reset_machine *m = calloc(1, sizeof *m);
    if (!m)
        fail("calloc", strerror(errno));
    m->vm = CALL(device, KVM_CREATE_VM, 0);
    CALL(m->vm, KVM_SET_TSS_ADDR, TSS_ADDRESS);
    struct kvm_enable_cap ring = {
        .cap = KVM_CAP_DIRTY_LOG_RING,
        .args = {RING * sizeof *m->ring},
    };
    CALL(m->vm, KVM_ENABLE_CAP, &ring);
    m->memory = map(SIZE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    m->image = map(SIZE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    write_guest(m->memory, pages);
    write_guest(m->image, pages);
    struct kvm_userspace_memory_region region = {
        .flags = KVM_MEM_LOG_DIRTY_PAGES,
        .memory_size = SIZE,
        .userspace_addr = (uintptr_t)m->memory,
    };
    CALL(m->vm, KVM_SET_USER_MEMORY_REGION, &region);
    m->vcpu = CALL(m->vm, KVM_CREATE_VCPU, 0);
    CALL(m->vcpu, KVM_SET_CPUID2, short_cpuid);
    m->run = map(run_size, MAP_SHARED, m->vcpu, 0);
    m->ring = map(RING * sizeof *m->ring, MAP_SHARED, m->vcpu, KVM_DIRTY_LOG_PAGE_OFFSET * PAGE);

    CALL(m->vcpu, KVM_GET_SREGS, &m->regs.sregs);
    struct kvm_segment flat = {
        .limit = 0xffffffff, .selector = 0x10, .type = 3, .s = 1, .present = 1, .db = 1, .g = 1};
    struct kvm_sregs *sregs = &m->regs.sregs;
    sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = flat;
    flat.type = 11;
    flat.selector = 8;
    sregs->cs = flat;
    sregs->cr0 |= 1;
    m->regs.regs = (struct kvm_regs){.rip = CODE_AT, .rflags = 2};
    CALL(m->vcpu, KVM_SET_SREGS, sregs);
    CALL(m->vcpu, KVM_SET_REGS, &m->regs.regs);
    CALL(m->vcpu, KVM_GET_VCPU_EVENTS, &m->regs.events);
    CALL(m->vcpu, KVM_GET_XSAVE, m->xsave);
    CALL(m->vcpu, KVM_GET_XCRS, &m->xcrs);
    CALL(m->vcpu, KVM_GET_DEBUGREGS, &m->debugregs);
    list_msrs(m->vcpu, m->msrs);
    for (size_t i = 0; i < MSR_IMAGES && m->msrs[i].count; i++)
        CALL(m->vcpu, KVM_GET_MSRS, &m->msrs[i]);
    return m;
}

static void put_back_pages(struct reset_machine *m)
{
    uint32_t found = 0;
    for (struct kvm_dirty_gfn *entry; (entry = &m->ring[m->at % RING])->flags & 1; m->at++) {
        size_t offset = entry->offset * PAGE;
        memcpy(m->memory + offset, m->image + offset, PAGE);
        entry->flags = KVM_DIRTY_GFN_F_RESET;
        found++;
    }
    if (found)
        CALL(m->vm, KVM_RESET_DIRTY_RINGS, 0);
}

static void reset(struct reset_machine *m)
{
    m->run->immediate_exit = 1; /* the OUT is completed */
    if (ioctl(m->vcpu, KVM_RUN, 0) >= 0 || errno != EINTR)
        fail("KVM_RUN", "it did not complete the instruction");
    m->run->immediate_exit = 0;

    put_back_pages(m);
    m->run->s.regs = m->regs;
    m->run->kvm_dirty_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;
    m->run->cr8 = m->regs.sregs.cr8;
    CALL(m->vcpu, KVM_SET_XSAVE, m->xsave);
    CALL(m->vcpu, KVM_SET_XCRS, &m->xcrs);
    CALL(m->vcpu, KVM_SET_DEBUGREGS, &m->debugregs);
    for (size_t i = 0; i < MSR_IMAGES && m->msrs[i].count; i++) {
        const struct msr_image *wanted = &m->msrs[i];
        size_t size = offsetof(struct msr_image, entries) + wanted->count * sizeof *wanted->entries;
        memcpy(&m->present, wanted, size);
        CALL(m->vcpu, KVM_GET_MSRS, &m->present);
        if (memcmp(&m->present, wanted, size))
            CALL(m->vcpu, KVM_SET_MSRS, wanted);
    }
    put_back_pages(m);
}

static void measure(int64_t *times, size_t count, struct reset_machine **made, uint32_t pages)
{
    if (!*made)
        *made = new_reset_machine(pages);
    struct reset_machine *m = *made;
    CALL(m->vcpu, KVM_RUN, 0);
    for (size_t i = 0; i < count; i++) {
        int64_t start = now();
        reset(m);
        CALL(m->vcpu, KVM_RUN, 0);
        times[i] = now() - start;
        uint32_t written;
        memcpy(&written, m->memory + DATA_AT + (pages - 1) * PAGE, sizeof written);
        if (m->run->exit_reason != KVM_EXIT_IO || written != 1)
            fail("KVM_RUN", "the machine was not as before");
    }
    reset(m);
}

void measure_reset_1(int64_t *times, size_t count)
{
    static struct reset_machine *made;
    measure(times, count, &made, 1);
}

void measure_reset_44(int64_t *times, size_t count)
{
    static struct reset_machine *made;
    measure(times, count, &made, 44);
}

void measure_reset_1000(int64_t *times, size_t count)
{
    static struct reset_machine *made;
    measure(times, count, &made, 1000);
}
