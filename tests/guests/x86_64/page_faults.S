// Page faults: the address, in CR2, goes to port 0x23 after each, as the error code to port 0x21.
// A page is missing, then read-only, then not to be executed; each is mended.

    .intel_syntax noprefix
    .code64
    .include "exceptions64.inc"

    make_idt
    mov rax, cr0
    bts rax, 16                     // CR0.WP: read-only is so for ring 0, too
    mov cr0, rax
    mov ecx, 0xc0000080
    rdmsr
    bts eax, 11                     // EFER.NXE
    wrmsr

    // 1 GiB on: a directory at 0x6000 and a table at 0x7000, whose first entry is missing.
    mov dword ptr [0x6000], 0x7003
    mov dword ptr [0x6004], 0
    mov qword ptr [0x7000], 0
    mov dword ptr [0xa008], 0x6003
    mov dword ptr [0xa00c], 0
    mov rax, cr3
    mov cr3, rax
    mov ebx, 0x40000000

    lea r15, [rip + 1f]
    mov eax, [rbx + 0x10]           // it is missing: a read
1:  call address
    lea r15, [rip + 1f]
    mov dword ptr [rbx + 0x20], eax // a write
1:  call address
    mov dword ptr [0x7000], 0x8001  // read-only
    mov eax, [rbx]
    lea r15, [rip + 1f]
    mov dword ptr [rbx + 0x30], 1
1:  call address
    mov dword ptr [0x7000], 0x8003
    mov dword ptr [0x7004], 0x80000000 // not to be executed
    invlpg [rbx]
    mov dword ptr [rbx], 0x90c3     // ret
    lea r15, [rip + 1f]
    call rbx
1:  pop rax
    call address
    mov dword ptr [0x7004], 0
    invlpg [rbx]
    call rbx                        // now it is
    mov eax, [0x7000]               // accessed and dirty
    out 0x10, eax
    hlt

address:
    mov rax, cr2
    out 0x23, eax
    ret
    make_handlers
