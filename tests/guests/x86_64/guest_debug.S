// The guest debugs itself: a breakpoint for execution and one for writes, by its debug registers, and
// single steps by RFLAGS.TF, also over OUT. DR6 goes to port 0x23 after each #DB.

    .intel_syntax noprefix
    .code64
    .include "exceptions64.inc"

    make_idt
    lea rax, [rip + executes]
    mov dr0, rax
    mov eax, 0x3000
    mov dr1, rax
    mov eax, 0xffff0ff0
    mov dr6, rax
    mov eax, 0x00d0040a
    mov dr7, rax

    lea r15, [rip + 1f]
executes:
    nop
1:  call status
    lea r15, [rip + 1f]
    mov dword ptr [0x3000], 1       // a trap: behind it
1:  call status
    mov eax, [0x3000]               // a read is no write
    mov dword ptr [0x3004], 1       // another place
    xor eax, eax
    mov dr7, rax

    lea r15, [rip + 1f]
    pushfq
    or dword ptr [rsp], 0x100
    popfq
    nop                             // the step is behind this one
1:  call status
    lea r15, [rip + 1f]
    pushfq
    or dword ptr [rsp], 0x100
    popfq
    out 0x10, al                    // and behind an instruction that the hypervisor completes
1:  call status
    mov eax, 7
    out 0x10, al
    hlt

status:
    mov rax, dr6
    out 0x23, eax
    mov eax, 0xffff0ff0
    mov dr6, rax
    ret
    make_handlers
