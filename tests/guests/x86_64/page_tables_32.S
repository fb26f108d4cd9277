// Paging of 32-bit code: tables of two levels with pages of 4 KiB and 4 MiB, then PAE's of three.

    .intel_syntax noprefix
    .code32

    // The directory at 0x20000: the first 4 MiB as one page, the second through a table at 0x21000.
    mov edi, 0x20000
    xor eax, eax
    mov ecx, 0x800
    cld
    rep stosd
    mov dword ptr [0x20000], 0x83
    mov dword ptr [0x20004], 0x21003
    mov dword ptr [0x21000], 0x30003
    mov dword ptr [0x21004], 0x31001
    mov dword ptr [0x20ffc], 0x21003    // the last 4 MiB: the same table
    mov eax, cr4
    or eax, 0x10                    // PSE
    mov cr4, eax
    mov eax, 0x20000
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax

    mov dword ptr [0x400000], 0x1234
    mov eax, [0x30000]
    out 0x10, eax
    mov dword ptr [0x31008], 0x5678
    mov eax, [0xffc01008]
    out 0x10, eax
    mov eax, [0x21000]              // accessed, dirty
    out 0x11, eax
    mov eax, [0x21004]              // accessed
    out 0x11, eax
    mov eax, [0x20000]
    and eax, 0xfff
    out 0x11, eax

    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    // PAE: the four pointers at 0x22000, the first directory at 0x23000, a table at 0x24000.
    mov edi, 0x22000
    xor eax, eax
    mov ecx, 0xc00
    rep stosd
    mov dword ptr [0x22000], 0x23001
    mov dword ptr [0x22018], 0x23001
    mov dword ptr [0x23000], 0x83
    mov dword ptr [0x23008], 0x24003
    mov dword ptr [0x24000], 0x32003
    mov eax, cr4
    or eax, 0x20                    // PAE
    mov cr4, eax
    mov eax, 0x22000
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    mov dword ptr [0x200000], 0x9abc
    mov eax, [0x32000]
    out 0x12, eax
    mov eax, [0xc0200000]           // the fourth pointer leads there, too
    out 0x12, eax
    mov eax, [0x24000]
    out 0x12, eax
    hlt
