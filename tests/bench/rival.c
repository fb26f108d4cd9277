/*
 * What the generated Python module is measured against: the same work in C, with nothing between
 * the program and the kernel.
 *
 * It is a server, so that its runs can alternate with Python's. It reads lines from its input, each
 * a command and a count, and answers each with one line: that many durations in nanoseconds, one
 * for each repetition, or "error" and what failed, which is its last line.
 *
 *     configure_firecracker N       a new vCPU made ready for 64-bit code by Firecracker's calls
 *     configure_ours N              the same by the calls that the generated module makes
 *     ..._after_cpuid N             either of them, with CPUID set before the clock starts
 *     set_regs N                    KVM_SET_REGS
 *     io_exit N                     KVM_RUN of a guest that does nothing but write to a port
 *     io_exit_busy N                the same while another thread of this program computes
 *     save N                        all state of a vCPU read
 *     reset_1 N, reset_44 N, ...    a machine reset that has written so many pages, and run again
 *
 * Records are filled while the clock runs where Firecracker fills them for each vCPU, and before
 * where the generated module does so when it is imported. Guest memory is written before.
 */

#include "rival.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <unistd.h>

/* ---- Machines ---- */

enum {
    MEMORY_SIZE = 0x10000,
    GDT = 0x500,
    IDT = 0x520,
    ZERO_PAGE = 0x7000,
    STACK = 0x8ff0,
    PML4 = 0x9000,
    PDPT = 0xa000,
    PAGE_DIRECTORY = 0xb000,
    ENTRY = 0xf000,
    PORT = 0x10,
    CPUID_ENTRIES = 256,
};

struct machine {
    int vm;
    int vcpu;
    struct kvm_run *run;
};

int device;
size_t run_size;
static struct kvm_cpuid2 *cpuid; /* asked for once: asking costs several times as much as setting */
struct kvm_cpuid2 *short_cpuid;

static uint8_t *new_memory(void)
{
    return map(MEMORY_SIZE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static struct machine new_machine(uint8_t *memory, bool irqchip)
{
    struct machine machine = {.vm = CALL(device, KVM_CREATE_VM, 0)};
    CALL(machine.vm, KVM_SET_TSS_ADDR, TSS_ADDRESS);
    struct kvm_userspace_memory_region region = {
        .memory_size = MEMORY_SIZE,
        .userspace_addr = (uintptr_t)memory,
    };
    CALL(machine.vm, KVM_SET_USER_MEMORY_REGION, &region);
    if (irqchip) {
        struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
        CALL(machine.vm, KVM_CREATE_IRQCHIP, 0);
        CALL(machine.vm, KVM_CREATE_PIT2, &pit);
    }
    machine.vcpu = CALL(machine.vm, KVM_CREATE_VCPU, 0);
    machine.run = map(run_size, MAP_SHARED, machine.vcpu, 0);
    return machine;
}

static void close_machine(struct machine machine)
{
    munmap(machine.run, run_size);
    close(machine.vcpu);
    close(machine.vm);
}

static bool wrote_port(const struct kvm_run *run, uint8_t value)
{
    return run->exit_reason == KVM_EXIT_IO && run->io.direction == KVM_EXIT_IO_OUT &&
           run->io.port == PORT && run->io.size == 1 && run->io.count == 1 &&
           ((const uint8_t *)run)[run->io.data_offset] == value;
}

/* ---- Configuring a vCPU for 64-bit code ---- */

/*
 * Only 64-bit code writes 0xff: in 32-bit mode 0x48 is an instruction of its own, "dec eax". The
 * descriptor table is left out, since KVM is given the segments' hidden parts and this guest loads
 * no segment.
 */
static void write_long_mode_guest(uint8_t *memory)
{
    static const uint8_t code[] = {
        0x31, 0xc0,       /* xor eax, eax */
        0x48, 0xff, 0xc8, /* dec rax */
        0xe6, PORT,       /* out PORT, al */
    };
    const uint64_t present_writable = 0x3, large = 0x80;
    memcpy(memory + ENTRY, code, sizeof code);
    *(uint64_t *)(memory + PML4) = PDPT | present_writable;
    *(uint64_t *)(memory + PDPT) = PAGE_DIRECTORY | present_writable;
    for (uint64_t i = 0; i < 512; i++)
        ((uint64_t *)(memory + PAGE_DIRECTORY))[i] = i << 21 | present_writable | large;
}

static struct kvm_segment segment(uint16_t selector, uint32_t limit, uint16_t attributes)
{
    return (struct kvm_segment){
        .selector = selector,
        .limit = limit,
        .type = attributes & 0xf,
        .s = attributes >> 4 & 1,
        .dpl = attributes >> 5 & 3,
        .present = attributes >> 7 & 1,
        .avl = attributes >> 12 & 1,
        .l = attributes >> 13 & 1,
        .db = attributes >> 14 & 1,
        .g = attributes >> 15 & 1,
    };
}

enum {
    CODE64 = 0xa09b,
    DATA = 0xc093,
    LDT = 0x82,
    TSS32 = 0x8b,
    CR0_PE = 0x1,
    CR0_MP = 0x2,
    CR0_ET = 0x10,
    CR0_NE = 0x20,
    CR4_PAE = 0x20,
    EFER_LME = 0x100,
    EFER_LMA = 0x400,
    APIC_DFR = 0xe0,
    APIC_SVR = 0xf0,
    APIC_LVT_TIMER = 0x320,
    APIC_LVT_LINT0 = 0x350,
    APIC_LVT_LINT1 = 0x360,
    APIC_LVT_ERROR = 0x370,
    LVT_MASKED = 0x10000,
    LVT_EXTINT = 0x700,
    LVT_NMI = 0x400,
};

static const uint64_t CR0_PG = 0x80000000;

static void set_lapic_register(struct kvm_lapic_state *lapic, size_t offset, uint32_t value)
{
    memcpy(lapic->regs + offset, &value, sizeof value);
}

static uint32_t lapic_register(const struct kvm_lapic_state *lapic, size_t offset)
{
    uint32_t value;
    memcpy(&value, lapic->regs + offset, sizeof value);
    return value;
}

/* struct kvm_msrs with its entries. */
struct msrs {
    uint32_t count;
    uint32_t padding;
    struct kvm_msr_entry entries[12];
};

/* KVM_SET_MSRS stops at the first that it refuses, and tells only by its count. */
static void set_msrs(int vcpu, const struct msrs *msrs)
{
    if ((uint32_t)CALL(vcpu, KVM_SET_MSRS, msrs) != msrs->count)
        fail("KVM_SET_MSRS", "an MSR was refused");
}

/*
 * Firecracker's src/vmm/src/arch/x86_64 (vcpu.rs, msr.rs, regs.rs, interrupts.rs): each function
 * knows only its own part, so what it does not set has to be read first.
 */
static void configure_firecracker(int vcpu)
{
    struct msrs msrs = {
        .count = 11,
        .entries =
            {
                {.index = 0x174},                /* SYSENTER_CS */
                {.index = 0x175},                /* SYSENTER_ESP */
                {.index = 0x176},                /* SYSENTER_EIP */
                {.index = 0xc0000081},           /* STAR */
                {.index = 0xc0000083},           /* CSTAR */
                {.index = 0xc0000102},           /* KERNEL_GS_BASE */
                {.index = 0xc0000084},           /* FMASK */
                {.index = 0xc0000082},           /* LSTAR */
                {.index = 0x10},                 /* TSC */
                {.index = 0x1a0, .data = 0x1},   /* MISC_ENABLE: fast strings */
                {.index = 0x2ff, .data = 0x806}, /* MTRR_DEF_TYPE: on, write back */
            },
    };
    set_msrs(vcpu, &msrs);

    struct kvm_regs regs = {
        .rflags = 0x2,
        .rip = ENTRY,
        .rsp = STACK,
        .rbp = STACK,
        .rsi = ZERO_PAGE,
    };
    CALL(vcpu, KVM_SET_REGS, &regs);

    struct kvm_fpu fpu = {.fcw = 0x37f, .mxcsr = 0x1f80};
    CALL(vcpu, KVM_SET_FPU, &fpu);

    struct kvm_sregs sregs;
    CALL(vcpu, KVM_GET_SREGS, &sregs);
    struct kvm_segment data = segment(0x10, 0xffffffff, DATA);
    sregs.cs = segment(0x8, 0xffffffff, CODE64);
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
    sregs.tr = segment(0x18, 0xffffffff, 0x808b);
    sregs.gdt.base = GDT;
    sregs.gdt.limit = 31;
    sregs.idt.base = IDT;
    sregs.idt.limit = 7;
    sregs.cr0 |= CR0_PE | CR0_PG;
    sregs.cr3 = PML4;
    sregs.cr4 |= CR4_PAE;
    sregs.efer |= EFER_LME | EFER_LMA;
    CALL(vcpu, KVM_SET_SREGS, &sregs);

    struct kvm_lapic_state lapic;
    CALL(vcpu, KVM_GET_LAPIC, &lapic);
    const uint32_t mode = 0x700; /* an LVT entry's delivery mode */
    uint32_t lint0 = lapic_register(&lapic, APIC_LVT_LINT0);
    uint32_t lint1 = lapic_register(&lapic, APIC_LVT_LINT1);
    set_lapic_register(&lapic, APIC_LVT_LINT0, (lint0 & ~mode) | LVT_EXTINT);
    set_lapic_register(&lapic, APIC_LVT_LINT1, (lint1 & ~mode) | LVT_NMI);
    CALL(vcpu, KVM_SET_LAPIC, &lapic);
}

/* Everything is known beforehand, so nothing is read. */
static struct {
    struct kvm_sregs sregs;
    struct kvm_lapic_state lapic;
    struct msrs msrs;
} prepared;

static void prepare(void)
{
    struct kvm_sregs *sregs = &prepared.sregs;
    sregs->cs = segment(0x10, 0xffffffff, CODE64);
    sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = segment(0x18, 0xffffffff, DATA);
    sregs->tr = segment(0x20, 0x67, TSS32);
    sregs->ldt = segment(0, 0xffff, LDT);
    sregs->gdt.limit = 0x2f;
    sregs->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_PG;
    sregs->cr4 = CR4_PAE;
    sregs->efer = EFER_LME | EFER_LMA;
    sregs->apic_base = 0xfee00900; /* enabled, and the boot processor's */

    struct kvm_lapic_state *lapic = &prepared.lapic;
    set_lapic_register(lapic, APIC_DFR, 0xffffffff);
    set_lapic_register(lapic, APIC_SVR, 0xff);
    for (size_t offset = APIC_LVT_TIMER; offset <= APIC_LVT_ERROR; offset += 0x10)
        set_lapic_register(lapic, offset, LVT_MASKED);
    set_lapic_register(lapic, APIC_LVT_LINT0, LVT_EXTINT);
    set_lapic_register(lapic, APIC_LVT_LINT1, LVT_NMI);

    prepared.msrs = (struct msrs){
        .count = 12,
        .entries =
            {
                {.index = 0x174},                             /* SYSENTER_CS */
                {.index = 0x175},                             /* SYSENTER_ESP */
                {.index = 0x176},                             /* SYSENTER_EIP */
                {.index = 0x1a0, .data = 0x1},                /* MISC_ENABLE: fast strings */
                {.index = 0x277, .data = 0x0007040600070406}, /* PAT */
                {.index = 0x2ff, .data = 0x806},              /* MTRR_DEF_TYPE: on, write back */
                {.index = 0xc0000081},                        /* STAR */
                {.index = 0xc0000082},                        /* LSTAR */
                {.index = 0xc0000083},                        /* CSTAR */
                {.index = 0xc0000084},                        /* FMASK */
                {.index = 0xc0000102},                        /* KERNEL_GS_BASE */
                {.index = 0xc0000103},                        /* TSC_AUX */
            },
    };
}

static void configure_ours(int vcpu)
{
    struct kvm_sregs sregs = prepared.sregs;
    sregs.gdt.base = GDT;
    sregs.cr3 = PML4;
    CALL(vcpu, KVM_SET_SREGS, &sregs);

    struct kvm_regs regs = {
        .rflags = 0x2,
        .rip = ENTRY,
        .rsp = STACK,
        .rbp = STACK,
        .rsi = ZERO_PAGE,
    };
    CALL(vcpu, KVM_SET_REGS, &regs);

    CALL(vcpu, KVM_SET_LAPIC, &prepared.lapic);
    set_msrs(vcpu, &prepared.msrs);
}

/* Only vCPU 0 boots and only a new one is unconfigured, so each repetition has its own machine. */
static void measure_configuring(int64_t *times, size_t count, void (*configure)(int),
                                struct kvm_cpuid2 *cpuid, bool cpuid_too)
{
    uint8_t *memory = new_memory();
    write_long_mode_guest(memory);
    for (size_t i = 0; i < count; i++) {
        struct machine machine = new_machine(memory, true);
        if (!cpuid_too)
            CALL(machine.vcpu, KVM_SET_CPUID2, cpuid);
        int64_t start = now();
        if (cpuid_too)
            CALL(machine.vcpu, KVM_SET_CPUID2, cpuid);
        configure(machine.vcpu);
        times[i] = now() - start;

        /* Configuring wrongly might be quicker. */
        CALL(machine.vcpu, KVM_RUN, 0);
        if (!wrote_port(machine.run, 0xff))
            fail("KVM_RUN", "the vCPU is not configured for 64-bit code");
        close_machine(machine);
    }
    munmap(memory, MEMORY_SIZE);
}

static void measure_configure_firecracker(int64_t *times, size_t count)
{
    measure_configuring(times, count, configure_firecracker, cpuid, true);
}

static void measure_configure_firecracker_after_cpuid(int64_t *times, size_t count)
{
    measure_configuring(times, count, configure_firecracker, cpuid, false);
}

static void measure_configure_ours(int64_t *times, size_t count)
{
    measure_configuring(times, count, configure_ours, short_cpuid, true);
}

static void measure_configure_ours_after_cpuid(int64_t *times, size_t count)
{
    measure_configuring(times, count, configure_ours, short_cpuid, false);
}

/* ---- Using a vCPU ---- */

/* Without interrupt controllers, one for each measurement, made when the program starts. */
static struct machine idle, looping;

static void make_machines(void)
{
    static const uint8_t code[] = {
        0xe6, PORT, /* out PORT, al */
        0xeb, 0xfc, /* jmp to the beginning */
    };
    idle = new_machine(new_memory(), false);
    uint8_t *memory = new_memory();
    memcpy(memory + ENTRY, code, sizeof code);
    looping = new_machine(memory, false);
    struct kvm_sregs sregs;
    CALL(looping.vcpu, KVM_GET_SREGS, &sregs);
    sregs.cs.base = sregs.cs.selector = 0;
    CALL(looping.vcpu, KVM_SET_SREGS, &sregs);
    struct kvm_regs regs = {.rax = 0x2a, .rip = ENTRY, .rflags = 0x2};
    CALL(looping.vcpu, KVM_SET_REGS, &regs);
}

static void measure_set_regs(int64_t *times, size_t count)
{
    struct kvm_regs regs = {.rip = ENTRY, .rsp = STACK, .rflags = 0x2};
    for (size_t i = 0; i < count; i++) {
        int64_t start = now();
        CALL(idle.vcpu, KVM_SET_REGS, &regs);
        times[i] = now() - start;
    }
}

static void measure_io_exit(int64_t *times, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int64_t start = now();
        CALL(looping.vcpu, KVM_RUN, 0);
        bool as_expected = wrote_port(looping.run, 0x2a);
        times[i] = now() - start;
        if (!as_expected)
            fail("KVM_RUN", "the guest did not write to its port");
    }
}

static atomic_bool computing, enough;

static void *compute(void *unused)
{
    (void)unused;
    volatile uint64_t sum = 0;
    computing = true;
    while (!enough)
        sum = sum * 3 + 1;
    computing = false;
    return NULL;
}

static void measure_io_exit_busy(int64_t *times, size_t count)
{
    pthread_t thread;
    int error = pthread_create(&thread, NULL, compute, NULL);
    if (error)
        fail("pthread_create", strerror(error));
    while (!computing)
        sched_yield();
    measure_io_exit(times, count);
    enough = true;
    pthread_join(thread, NULL);
    enough = false;
}

/* ---- The whole state of a vCPU ---- */

/* A machine with interrupt controllers, and what its vCPU has, as ours finds out when it is made. */
static struct machine whole;
static size_t xsave_size;

static struct msr_image msr_images[MSR_IMAGES];

static size_t add_msrs(int vcpu, struct msr_image *images, size_t count, uint32_t first, uint32_t last)
{
    for (uint32_t index = first; index <= last; index++) {
        struct msr_image one = {.count = 1, .entries[0].index = index};
        if (index == 0x10 || ioctl(vcpu, KVM_GET_MSRS, &one) != 1)
            continue;
        struct msr_image *image = &images[count++ / MSRS_AT_ONCE];
        image->entries[image->count++].index = index;
    }
    return count;
}

void list_msrs(int vcpu, struct msr_image images[MSR_IMAGES])
{
    static const uint32_t unlisted[][2] = {
        /* The memory types, and the banks of machine checks. */
        {0x200, 0x20f}, {0x250, 0x26f}, {0x280, 0x29f}, {0x2ff, 0x2ff}, {0x400, 0x47f},
        {0xc0000103, 0xc0000103}, {0xc0010140, 0xc0010141},
    };
    static struct { /* struct kvm_msr_list with its indices */
        uint32_t count;
        uint32_t indices[MOST_MSRS];
    } list;
    list.count = MOST_MSRS;
    CALL(device, KVM_GET_MSR_INDEX_LIST, &list);
    size_t count = 0;
    for (uint32_t i = 0; i < list.count; i++)
        count = add_msrs(vcpu, images, count, list.indices[i], list.indices[i]);
    for (size_t i = 0; i < LENGTH(unlisted); i++)
        count = add_msrs(vcpu, images, count, unlisted[i][0], unlisted[i][1]);
}

static void make_whole(void)
{
    whole = new_machine(new_memory(), true);
    CALL(whole.vcpu, KVM_SET_CPUID2, short_cpuid);
    xsave_size = (size_t)CALL(whole.vm, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
    list_msrs(whole.vcpu, msr_images);
}

struct whole_state {
    uint64_t tsc_offset;
    struct msr_image tsc;
    int tsc_khz;
    struct kvm_mp_state activity;
    struct kvm_sregs2 sregs;
    struct kvm_regs regs;
    struct kvm_xcrs xcrs;
    struct kvm_debugregs debugregs;
    struct kvm_lapic_state lapic;
    struct kvm_vcpu_events events;
    struct msr_image msrs[LENGTH(msr_images)];
    uint8_t xsave[];
};

static void save(struct whole_state *state)
{
    struct kvm_device_attr offset = {
        .group = KVM_VCPU_TSC_CTRL,
        .attr = KVM_VCPU_TSC_OFFSET,
        .addr = (uintptr_t)&state->tsc_offset,
    };
    int fd = whole.vcpu;
    state->tsc_khz = CALL(fd, KVM_GET_TSC_KHZ, 0);
    CALL(fd, KVM_GET_DEVICE_ATTR, &offset);
    state->tsc.count = 1;
    state->tsc.entries[0].index = 0x10;
    CALL(fd, KVM_GET_MSRS, &state->tsc);
    CALL(fd, KVM_GET_MP_STATE, &state->activity);
    CALL(fd, KVM_GET_SREGS2, &state->sregs);
    CALL(fd, KVM_GET_REGS, &state->regs);
    CALL(fd, KVM_GET_XSAVE, state->xsave);
    CALL(fd, KVM_GET_XCRS, &state->xcrs);
    CALL(fd, KVM_GET_DEBUGREGS, &state->debugregs);
    CALL(fd, KVM_GET_LAPIC, &state->lapic);
    memcpy(state->msrs, msr_images, sizeof msr_images);
    for (size_t i = 0; i < LENGTH(msr_images) && state->msrs[i].count; i++)
        CALL(fd, KVM_GET_MSRS, &state->msrs[i]);
    CALL(fd, KVM_GET_VCPU_EVENTS, &state->events);
}

static void measure_save(int64_t *times, size_t count)
{
    if (!whole.run)
        make_whole();
    for (size_t i = 0; i < count; i++) {
        int64_t start = now();
        struct whole_state *state = calloc(1, sizeof *state + xsave_size);
        if (!state)
            fail("calloc", strerror(errno));
        save(state);
        times[i] = now() - start;
        free(state);
    }
}

/* ---- The server ---- */

static const struct {
    const char *name;
    void (*measure)(int64_t *times, size_t count);
} commands[] = {
    {"configure_firecracker", measure_configure_firecracker},
    {"configure_firecracker_after_cpuid", measure_configure_firecracker_after_cpuid},
    {"configure_ours", measure_configure_ours},
    {"configure_ours_after_cpuid", measure_configure_ours_after_cpuid},
    {"set_regs", measure_set_regs},
    {"save", measure_save},
    {"io_exit", measure_io_exit},
    {"io_exit_busy", measure_io_exit_busy},
    {"reset_1", measure_reset_1},
    {"reset_44", measure_reset_44},
    {"reset_1000", measure_reset_1000},
    {"memory_2m", measure_memory_2m},
    {"memory_1t", measure_memory_1t},
};

static void answer(const char *command, size_t count)
{
    size_t i = 0;
    while (strcmp(commands[i].name, command))
        if (++i == LENGTH(commands))
            fail(command, "there is no such command");
    int64_t *times = calloc(count, sizeof *times);
    if (!times)
        fail("calloc", strerror(errno));
    commands[i].measure(times, count);
    for (i = 0; i < count; i++)
        printf("%lld%c", (long long)times[i], i + 1 < count ? ' ' : '\n');
    fflush(stdout);
    free(times);
}

int main(void)
{
    device = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (device < 0)
        fail("open /dev/kvm", strerror(errno));
    run_size = (size_t)CALL(device, KVM_GET_VCPU_MMAP_SIZE, 0);
    size_t room = sizeof *cpuid + CPUID_ENTRIES * sizeof cpuid->entries[0];
    cpuid = calloc(1, room);
    short_cpuid = calloc(1, room);
    if (!cpuid || !short_cpuid)
        fail("calloc", strerror(errno));
    cpuid->nent = CPUID_ENTRIES;
    CALL(device, KVM_GET_SUPPORTED_CPUID, cpuid);
    for (uint32_t i = 0; i < cpuid->nent; i++) {
        const struct kvm_cpuid_entry2 *entry = &cpuid->entries[i];
        if (entry->eax | entry->ebx | entry->ecx | entry->edx)
            short_cpuid->entries[short_cpuid->nent++] = *entry;
    }
    prepare();
    make_machines();

    char command[64];
    size_t count;
    int found;
    while ((found = scanf("%63s %zu", command, &count)) == 2 && count)
        answer(command, count);
    if (found != EOF)
        fail("input", "a command is a name and a count above 0");
    return 0;
}
