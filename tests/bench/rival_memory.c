/* Memory that is mapped, given to a machine that exists, taken back and unmapped. */
#include "rival.h"

#include <unistd.h>

static void measure(int64_t *times, size_t count, size_t size)
{
    int vm = CALL(device, KVM_CREATE_VM, 0);
    for (size_t i = 0; i < count; i++) {
        int64_t start = now();
        struct kvm_userspace_memory_region region = {.guest_phys_addr = 1ULL << 33};
        region.memory_size = size;
        void *memory = map(size, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        region.userspace_addr = (uintptr_t)memory;
        CALL(vm, KVM_SET_USER_MEMORY_REGION, &region);
        region.memory_size = 0;
        CALL(vm, KVM_SET_USER_MEMORY_REGION, &region);
        munmap(memory, size);
        times[i] = now() - start;
    }
    close(vm);
}

void measure_memory_2m(int64_t *times, size_t count) { measure(times, count, 2ULL << 20); }

void measure_memory_1t(int64_t *times, size_t count) { measure(times, count, 1ULL << 40); }
