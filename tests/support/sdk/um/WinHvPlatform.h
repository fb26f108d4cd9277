#pragma once

#include <ApiSet.h>
#include <apisetcconv.h>
#include <minwindef.h>
#include <winapifamily.h>
#include <WinHvPlatformDefs.h>

#pragma region Desktop Family
#if WINAPI_FAMILY_PARTITION(WINAPI_PARTITION_DESKTOP)

_Must_inspect_result_
HRESULT
WINAPI
OddGetProperty(
    _In_ ODD_HANDLE Handle,
    _In_range_(0, 15) ODD_KIND Kind,
    _Out_writes_bytes_to_(BufferSize, *WrittenSize) VOID* Buffer,
    _In_ UINT32 BufferSize,
    _When_(WrittenSize != 0, _Out_range_(0, BufferSize)) _Inout_ UINT32* WrittenSize
    );

STDAPI OddReset(_In_opt_ ODD_HANDLE Handle);

STDAPI_(BOOL) OddReady(VOID);

EXTERN_C __declspec(dllimport) DECLSPEC_DEPRECATED HANDLE WINAPI OddOpen(_In_reads_bytes_(Size) const VOID* Name, UINT32 Size);

#endif
#pragma endregion
