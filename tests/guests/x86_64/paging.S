// Puts a mapping of 1 GiB to the guest-physical address 1 MiB into its page tables and writes through
// it.

    .intel_syntax noprefix
    .code64

    // The given PML4 at 0x9000 points to a PDPT at 0xA000, whose second entry is for 1 GiB. A new
    // directory at 0x4000 and table at 0x5000 take its place; what lies below 1 GiB stays.
    mov dword ptr [0x4000], 0x5003
    mov dword ptr [0x5000], 0x100003
    mov dword ptr [0xa008], 0x4003
    mov rax, cr3
    mov cr3, rax                    // and forget what was
    mov rbx, 0x40000123
    mov dword ptr [rbx], 0xcafef00d
    mov eax, [0x100123]
    out 0x10, eax
    hlt
