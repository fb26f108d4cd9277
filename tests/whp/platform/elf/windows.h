/*
 * The project's shim of <windows.h>, for a compiler whose long has 64 bits: Windows' has 32.
 *
 * What the Hyper-V platform headers make of it is checked by their own C_ASSERTs.
 */
#ifndef VMM_ARCH_ELF_WINDOWS_H
#define VMM_ARCH_ELF_WINDOWS_H

#define LONG WideLong
#define HRESULT WideHresult
#define ULONG WideUlong
#define DWORD WideDword
#define LUID WideLuid
#define _LUID _WideLuid
#include_next <windows.h>
#undef LONG
#undef HRESULT
#undef ULONG
#undef DWORD
#undef LUID
#undef _LUID

typedef int LONG, HRESULT;
typedef unsigned int ULONG, DWORD;
typedef struct _LUID {
    DWORD LowPart;
    LONG HighPart;
} LUID;

#endif
