// Starts the second vCPU with INIT and SIPI, waits for its word in memory, and sends that on. The
// second vCPU, in real mode, sends its APIC id as CPUID says it, its segment, and leaves its word.

    .intel_syntax noprefix
    .code64

    mov ebx, 0xfee00000
    mov dword ptr [rbx + 0xf0], 0x1ff           // switches the local APIC on
    mov dword ptr [rbx + 0x310], 1 << 24        // to APIC id 1
    mov dword ptr [rbx + 0x300], 0x4500         // INIT
    mov ecx, 2000                               // some time between the two, as manuals ask for
pause_:
    pause
    dec ecx
    jnz pause_
    mov dword ptr [rbx + 0x310], 1 << 24
    mov dword ptr [rbx + 0x300], 0x4600 | 0x11  // SIPI to the page 0x11000

wait_:
    pause
    mov eax, [0x3000]
    test eax, eax
    jz wait_
    out 0x10, eax
    hlt

    .org 0x1000                     // 0x11000; here it is 0x1100:0
    .code16
secondary:
    mov eax, 1
    cpuid
    mov eax, ebx
    out 0x20, eax
    mov ax, cs
    out 0x21, ax
    mov dword ptr ds:[0x3000], 0x5ec0
    out 0x22, al
    hlt
