/*
 * Linux by its bare system calls: all that an ELF library and a DLL under Wine have in common.
 *
 * No C library is linked, so that neither build needs one.
 */
#ifndef VMM_ARCH_LINUX_H
#define VMM_ARCH_LINUX_H

typedef unsigned char u8;
typedef signed char i8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

/* Numbers of x86_64's system calls (arch/x86/entry/syscalls/syscall_64.tbl). */
enum {
    SYS_read = 0,
    SYS_open = 2,
    SYS_close = 3,
    SYS_mmap = 9,
    SYS_munmap = 11,
    SYS_rt_sigprocmask = 14,
    SYS_ioctl = 16,
    SYS_sched_yield = 24,
    SYS_getpid = 39,
    SYS_gettid = 186,
    SYS_rt_sigtimedwait = 128,
    SYS_tgkill = 234,
};
enum { EPERM = 1, EINTR = 4, EAGAIN = 11, EEXIST = 17, EINVAL = 22 };

static inline i64 system_call(i64 number, i64 a, i64 b, i64 c, i64 d, i64 e, i64 f)
{
    i64 result;
    register i64 r10 __asm__("r10") = d;
    register i64 r8 __asm__("r8") = e;
    register i64 r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

static inline i64 ioctl(int fd, u32 request, void *argument)
{
    return system_call(SYS_ioctl, fd, request, (i64)argument, 0, 0, 0);
}

static inline void close_file(int fd) { system_call(SYS_close, fd, 0, 0, 0, 0, 0); }

/* Zeroed memory, or what a file maps; null where there is none. */
static inline void *map_pages(u64 size, int fd)
{
    enum { PROT_READ_WRITE = 3, MAP_SHARED = 1, MAP_PRIVATE_ANONYMOUS = 0x22 };
    int flags = fd < 0 ? MAP_PRIVATE_ANONYMOUS : MAP_SHARED;
    i64 address = system_call(SYS_mmap, 0, (i64)size, PROT_READ_WRITE, flags, fd, 0);
    return address < 0 && address > -4096 ? 0 : (void *)address;
}

static inline void unmap_pages(void *address, u64 size)
{
    system_call(SYS_munmap, (i64)address, (i64)size, 0, 0, 0, 0);
}

static inline void copy(void *to, const void *from, u64 size)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size)::"memory");
}

static inline void clear(void *at, u64 size)
{
    __asm__ volatile("rep stosb" : "+D"(at), "+c"(size) : "a"(0) : "memory");
}

static inline u64 smaller(u64 a, u64 b) { return a < b ? a : b; }

typedef struct {
    int held;
} lock;

static inline void acquire(lock *l)
{
    while (__atomic_exchange_n(&l->held, 1, __ATOMIC_ACQUIRE))
        system_call(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
}

static inline void release(lock *l) { __atomic_store_n(&l->held, 0, __ATOMIC_RELEASE); }

#endif
