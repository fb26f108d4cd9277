/*
 * What the kernel's headers for hypervisors take from linux/types.h, and from what that includes. The
 * kernel's own ends in the internals of its locks and lists.
 */
#ifndef VMM_ARCH_SHIM_KERNEL_TYPES
#define VMM_ARCH_SHIM_KERNEL_TYPES

typedef signed char __s8;
typedef unsigned char __u8;
typedef short __s16;
typedef unsigned short __u16;
typedef int __s32;
typedef unsigned int __u32;
typedef long long __s64;
typedef unsigned long long __u64;

#define s8 __s8
#define u8 __u8
#define s16 __s16
#define u16 __u16
#define s32 __s32
#define u32 __u32
#define s64 __s64
#define u64 __u64
#define bool _Bool
#define ulong unsigned long

/* linux/kconfig.h */
#ifdef __x86_64__
#define CONFIG_X86 1
#define CONFIG_X86_64 1
#endif
#ifdef __aarch64__
#define CONFIG_ARM64 1
#endif
#define IS_ENABLED(option) option

/* linux/compiler_attributes.h */
#define __packed __attribute__((packed))
#define __aligned(bytes) __attribute__((aligned(bytes)))

/* linux/stddef.h */
#define DECLARE_FLEX_ARRAY(type, name) \
	struct { struct { } __empty_##name; type name[]; }
#define __TRAILING_OVERLAP(type, name, member, attributes, members) \
	union { \
		type name; \
		struct { \
			unsigned char __offset_to_FAM[offsetof(type, member)]; \
			members \
		} attributes; \
	}

#endif
