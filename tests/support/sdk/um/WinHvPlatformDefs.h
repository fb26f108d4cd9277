#pragma once
#include <MinWinDef.h>

#pragma warning(push)
#pragma warning(disable : 4201) // unnamed members

#if defined(_AMD64_)
#define ODD_CPU 0x8664ui16
#elif defined(_ARM64_)
#define ODD_CPU 0xAA64ui16
#endif

#define ODD_ALL 0xFFFFFFFFFFFFFFFFui64
#define ODD_ONE 1ui32
#define ODD_LOW (~0xFFFui64)

typedef PVOID ODD_HANDLE;

typedef enum ODD_KIND
{
    OddKindFirst  = 0x00000000,
    OddKindSecond = 0x00001000,
} ODD_KIND;

typedef union DECLSPEC_ALIGN(16) ODD_UINT128
{
    struct
    {
        UINT64 Low64;
        UINT64 High64;
    };
    UINT32 Dword[4];
} ODD_UINT128;

C_ASSERT(sizeof(ODD_UINT128) == 16);

typedef struct ODD_BITS
{
    union
    {
        struct
        {
            UINT64 Present : 1;
            UINT64 Kind : 3;
            UINT64 Reserved : 60;
        };
        UINT64 AsUINT64;
    };
} ODD_BITS;

#include <pshpack4.h>

typedef struct _ODD_PACKED
{
    UINT16 Size;
    UINT64 Address;
    _Field_size_bytes_(Size) BYTE Data[6];
    struct { BYTE One; UINT32 Four; } Inner;
} ODD_PACKED, *PODD_PACKED;

#include <poppack.h>

__pragma(pack(push, 1))
typedef struct ODD_BYTES { BYTE One; UINT32 Four; } ODD_BYTES;
__pragma(pack(pop))

typedef struct __declspec(align(4096)) ODD_PAGE
{
    __declspec(align(64)) unsigned __int64 Line;
    BYTE Rest[100];
} ODD_PAGE;

typedef HRESULT (CALLBACK *ODD_CALLBACK)(
    _In_ VOID* Context,
    _Inout_ ODD_BITS* Bits
    );

#pragma warning(pop)
