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

#define VOID void
#define CONST const
#define TRUE 1
#define FALSE 0
#define ANYSIZE_ARRAY 1

/* x86_64 and ARM64 have one calling convention. */
#define WINAPI
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
#define C_ASSERT(condition) _Static_assert(condition, #condition)
#define __C89_NAMELESS
#define DUMMYSTRUCTNAME
#define DUMMYUNIONNAME

/* Annotations of Microsoft's own headers (SAL) that say nothing about the ABI. */
#define _In_
#define _In_opt_
#define _In_reads_(count)
#define _In_reads_bytes_(size)
#define _In_reads_bytes_opt_(size)
#define _In_reads_opt_(count)
#define _Inout_
#define _Inout_opt_
#define _Inout_updates_bytes_(size)
#define _Out_
#define _Out_opt_
#define _Out_writes_(count)
#define _Out_writes_all_(count)
#define _Out_writes_bytes_(size)
#define _Out_writes_bytes_opt_(size)
#define _Out_writes_bytes_to_(size, count)
#define _Out_writes_bytes_to_opt_(size, count)
#define _Out_writes_to_(size, count)
#define _Outptr_
#define _Must_inspect_result_
#define _Pre_satisfies_(condition)
#define _Post_satisfies_(condition)
#define _Success_(condition)

#endif
