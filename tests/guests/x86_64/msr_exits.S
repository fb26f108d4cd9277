// Reads IA32_LSTAR and sends it, writes it twice, writes IA32_STAR, reads IA32_PAT and sends it, reads an MSR
// that no processor has.

    .intel_syntax noprefix
    .code64
    .include "exceptions64.inc"

    make_idt
    mov ecx, 0xc0000082             // IA32_LSTAR
    xor eax, eax
    xor edx, edx
    rdmsr
    out 0x10, eax
    mov eax, edx
    out 0x10, eax
    mov eax, 5
    mov edx, 6
    wrmsr
    mov eax, 7
    wrmsr

    lea r15, [rip + 1f]
    mov ecx, 0xc0000081             // IA32_STAR
    wrmsr
1:
    mov ecx, 0x277                  // IA32_PAT
    rdmsr
    out 0x10, eax

    lea r15, [rip + 1f]
    mov ecx, 0x12345678
    rdmsr
1:
    hlt
    make_handlers
