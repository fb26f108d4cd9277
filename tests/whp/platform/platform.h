/* What the parts of this WinHvPlatform share: a partition is a KVM machine, a processor a vCPU. */
#ifndef VMM_ARCH_PLATFORM_H
#define VMM_ARCH_PLATFORM_H

#include <windows.h>
#include <winhvplatform.h>

#include <linux/kvm.h>

#include "hresult.h"
#include "linux.h"

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

enum { PROCESSORS = 64, MAPPINGS = 256, LIST = 256, PAGE = 4096, LAPIC_SIZE = 4096 };
/* The signal that ends KVM_RUN: a real-time one that neither Python nor Wine uses. */
enum { KICK_SIGNAL = 62 };

/* A range of guest-physical addresses and the caller's memory behind it. */
typedef struct {
    u64 gpa, size; /* bytes; a size of 0 means that this slot is free */
    u8 *host;
    u32 flags;  /* WHV_MAP_GPA_RANGE_FLAGS */
    u64 *dirty; /* pages written since the last query, where the flags ask for it */
} mapping;

/* What was read of a vCPU and is to be written back; only who owns the processor uses it. */
typedef struct {
    u32 have, changed; /* of enum part */
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_debugregs debug;
    struct kvm_vcpu_events events;
    struct kvm_xcrs xcrs;
    u8 xsave[sizeof(struct kvm_xsave)];
    struct kvm_lapic_state lapic;
    struct kvm_mp_state activity;
} state;

enum part {
    REGS = 1,
    SREGS = 2,
    DEBUG = 4,
    EVENTS = 8,
    XCRS = 16,
    XSAVE = 32,
    LAPIC = 64,
    ACTIVITY = 128,
};

typedef struct {
    int exists, fd;
    u32 index;
    struct kvm_run *run;
    lock running;  /* held by the call that uses this processor */
    lock kicking;  /* held while thread is looked at, so that no signal comes late */
    u32 thread;    /* the thread in KVM_RUN, or 0 */
    int cancelled; /* somebody wants the present run, or else the next, to end */
    u64 ran;       /* nanoseconds in runs */
    struct WHV_PROCESSOR_INTERCEPT_COUNTERS intercepts;
    int stepping;  /* every instruction is looked at before it runs */
    u64 notifications;
    u64 debug_exception; /* WHV_X64_PENDING_DEBUG_EXCEPTION, for the next run to deliver */
    state state;
} processor;

typedef struct {
    u32 count;
    u64 extended_exits, exception_exits, msr_exits;
    u32 apic_mode, unimplemented_msr;
    int separate; /* SeparateSecurityDomain */
    u64 synthetic; /* WHV_SYNTHETIC_PROCESSOR_FEATURES */
    u32 cpuid_exits[LIST], cpuid_exit_count;
    struct {
        u32 count;
        WHV_X64_CPUID_RESULT2 results[LIST];
    } cpuid[2]; /* CpuidResultList, whose entries stand for every subleaf; CpuidResultList2 */
    WHV_MSR_ACTION_ENTRY msr_actions[LIST];
    u32 msr_action_count;
} properties;

typedef struct {
    int kvm, vm, set_up;
    u32 run_size;
    properties properties;
    lock memory;
    mapping mappings[MAPPINGS];
    lock interrupts;
    struct kvm_irq_routing_entry routes[24]; /* level-triggered interrupts, for their EOI */
    u32 route_count;
    lock time;
    u64 suspended_at; /* the host's time-stamp counter, or 0 */
    processor processors[PROCESSORS];
} partition;

/* partition.c */
partition *find_partition(WHV_PARTITION_HANDLE handle);
partition *set_up_partition(WHV_PARTITION_HANDLE handle, HRESULT *error);
/* The processor, owned by the caller until leave(); null with the HRESULT that says why not. */
processor *enter(WHV_PARTITION_HANDLE handle, UINT32 index, partition **of, HRESULT *error);
void leave(processor *vp);

/* older.c: whether a register (r) or property (p) is to be unknown here. */
int lacks(char kind, u32 number);

/* capabilities.c: what this platform can do with this host's KVM. */
extern const u64 EXTENDED_EXITS, EXCEPTION_EXITS, MSR_EXITS;
u64 synthetic_features(int kvm);
u64 clock_frequency(int kvm);

/* cpuid.c */
struct kvm_cpuid2 *partition_cpuid(partition *p, u32 index);
void free_cpuid(struct kvm_cpuid2 *list);
void find_cpuid(partition *p, processor *vp, u32 leaf, u32 subleaf, u32 out[4]);

/* msrs.c: what happens at an MSR that the partition's properties or KVM do not let through. */
HRESULT filter_msrs(partition *p);
u32 msr_action(partition *p, u32 msr, int write, int unimplemented);

/* memory.c */
u8 *host_address(partition *p, u64 gpa, u32 *flags);
int is_mapped(partition *p, u64 gpa);
void forget_memory(partition *p);

/* walk.c: translation as the processor does it. */
WHV_TRANSLATE_GVA_RESULT_CODE walk(partition *p, state *s, u64 gva, u32 flags, u64 *gpa);
u32 read_linear(partition *p, state *s, u64 address, void *to, u32 size);
u32 write_linear(partition *p, state *s, u64 address, const void *from, u32 size);

/* time.c */
i64 resume_time(partition *p);
i64 set_counter(processor *vp, u64 now, u64 wanted);

/* counters.c */
u64 nanoseconds(void);
void count_exit(processor *vp, u32 reason, u64 since);

/* registers.c */
void forget_state(processor *vp);
void need(processor *vp, u32 parts);
i64 write_back(processor *vp);
i64 deliver_debug_exception(processor *vp);
void segment_out(const struct kvm_segment *from, WHV_X64_SEGMENT_REGISTER *to);

#endif
