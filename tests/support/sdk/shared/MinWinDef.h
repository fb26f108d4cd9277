#pragma once
#include <SpecStrings.h>
#include <BaseTsd.h>

#if !defined(_AMD64_) && defined(_M_AMD64)
#define _AMD64_
#elif !defined(_ARM64_) && defined(_M_ARM64)
#define _ARM64_
#endif

#define VOID void
#define CONST const
#define CALLBACK __stdcall
#define WINAPI __stdcall
#define DECLSPEC_ALIGN(x) __declspec(align(x))
#define DECLSPEC_DEPRECATED __declspec(deprecated)
#define C_ASSERT(e) typedef char __C_ASSERT__[(e) ? 1 : -1]
#define EXTERN_C extern
#define STDAPI EXTERN_C HRESULT __stdcall
#define STDAPI_(type) EXTERN_C type __stdcall

typedef int BOOL;
typedef unsigned char BYTE, UINT8;
typedef unsigned short UINT16;
typedef long HRESULT;
typedef void *PVOID, *HANDLE;
