/*
 * What the Hyper-V platform headers need of the Windows headers, as plain C that pycparser reads.
 *
 * The real headers run to ninety thousand lines of compiler extensions. Nothing here is taken on
 * trust: the compiler proves every type that results against the real headers of the target.
 */
#ifndef VMM_ARCH_SHIM_WINDOWS_H
#define VMM_ARCH_SHIM_WINDOWS_H

typedef int BOOL, INT, WINBOOL;
typedef unsigned char BYTE, UCHAR, BOOLEAN, UINT8, *PUINT8;
typedef signed char INT8;
typedef char CHAR;
typedef short SHORT, INT16;
typedef unsigned short WORD, USHORT, UINT16, WCHAR;
typedef long LONG, HRESULT;
typedef unsigned long ULONG, DWORD;
typedef int INT32;
typedef unsigned int UINT, UINT32, *PUINT32;
typedef long long LONGLONG, LONG64, INT64;
typedef unsigned long long ULONGLONG, ULONG64, DWORD64, UINT64, *PUINT64;
typedef unsigned long long SIZE_T, ULONG_PTR, UINT_PTR;
typedef void *PVOID, *HANDLE;

typedef struct _GUID {
    unsigned long Data1;
    unsigned short Data2;
    unsigned short Data3;
    unsigned char Data4[8];
} GUID;

typedef struct _LUID {
    DWORD LowPart;
    LONG HighPart;
} LUID;

typedef union _LARGE_INTEGER {
    struct {
        DWORD LowPart;
        LONG HighPart;
    };
    struct {
        DWORD LowPart;
        LONG HighPart;
    } u;
    LONGLONG QuadPart;
} LARGE_INTEGER;

typedef enum _DEVICE_POWER_STATE {
    PowerDeviceUnspecified,
    PowerDeviceD0,
    PowerDeviceD1,
    PowerDeviceD2,
    PowerDeviceD3,
    PowerDeviceMaximum
} DEVICE_POWER_STATE;

/* What Microsoft's compiler predefines, and its headers from that. */
#if defined(__x86_64__)
#define _M_AMD64 100
#define _M_X64 100
#define _AMD64_
#elif defined(__aarch64__)
#define _M_ARM64 1
#define _ARM64_
#endif
#define _WIN64

#define VOID void
#define CONST const
#define FAR
#define NEAR
#define OPTIONAL
#define UNALIGNED
#define TRUE 1
#define FALSE 0
#define ANYSIZE_ARRAY 1

/* x86_64 and ARM64 have one calling convention. */
#define WINAPI
#define APIENTRY
#define NTAPI
#define CALLBACK
#define STDAPICALLTYPE
#define STDAPI extern HRESULT
#define STDAPI_(type) extern type
#define EXTERN_C extern
#define FORCEINLINE static inline

#define WINAPI_PARTITION_DESKTOP 1
#define WINAPI_FAMILY_PARTITION(partition) (partition)
#define DEFINE_ENUM_FLAG_OPERATORS(type)
#define DECLSPEC_ALIGN(bytes) __attribute__((aligned(bytes)))
#define DECLSPEC_ALLOCATOR
#define DECLSPEC_DEPRECATED
#define DECLSPEC_IMPORT
#define DECLSPEC_NOINLINE
#define DECLSPEC_NORETURN
#define DECLSPEC_NOVTABLE
#define DECLSPEC_SELECTANY
#define DECLSPEC_UUID(text)
#define C_ASSERT(condition) _Static_assert(condition, #condition)
#define __C89_NAMELESS
#define DUMMYSTRUCTNAME
#define DUMMYUNIONNAME

#endif
