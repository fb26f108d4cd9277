/* What the parts of the C program share: see rival.c. */

#define _GNU_SOURCE

#include <errno.h>
#include <linux/kvm.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

#define LENGTH(array) (sizeof(array) / sizeof(array)[0])

static inline void fail(const char *what, const char *why)
{
    printf("error %s: %s\n", what, why);
    exit(1);
}

#define CALL(fd, request, argument) call(fd, request, #request, (unsigned long)(argument))

static inline int call(int fd, unsigned long request, const char *name, unsigned long argument)
{
    int result = ioctl(fd, request, argument);
    if (result < 0)
        fail(name, strerror(errno));
    return result;
}

static inline int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

static inline void *map(size_t size, int flags, int fd, off_t offset)
{
    void *mapped = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, offset);
    if (mapped == MAP_FAILED)
        fail("mmap", strerror(errno));
    return mapped;
}

/* Where KVM wants three pages for itself on Intel's processors. */
#define TSS_ADDRESS 0xfffbd000UL

extern int device;
extern size_t run_size;
extern struct kvm_cpuid2 *short_cpuid; /* without the leaves that are zero, as ours sets it */

enum { MSRS_AT_ONCE = 255, MOST_MSRS = 1024, MSR_IMAGES = MOST_MSRS / MSRS_AT_ONCE + 1 };
struct msr_image { /* struct kvm_msrs with its entries */
    uint32_t count;
    uint32_t padding;
    struct kvm_msr_entry entries[MSRS_AT_ONCE];
};

/* Find the MSRs that a vCPU has, as ours does when a machine is made. */
void list_msrs(int vcpu, struct msr_image images[MSR_IMAGES]);

/* rival_reset.c */
void measure_reset_1(int64_t *times, size_t count);
void measure_reset_44(int64_t *times, size_t count);
void measure_reset_1000(int64_t *times, size_t count);

/* rival_memory.c */
void measure_memory_2m(int64_t *times, size_t count);
void measure_memory_1t(int64_t *times, size_t count);
