// Gets every general register and RFLAGS from the host. Exchanges them in pairs and adds something
// else to each, without any memory, and leaves carry as it came in the lowest bit of RAX.

    .intel_syntax noprefix
    .code64

    setc al                         // the flags that the host set
    xchg rbx, rcx
    xchg rdx, rsi
    xchg rdi, rbp
    xchg r8, r15
    xchg r9, r14
    xchg r10, r13
    xchg r11, r12
    lea rbx, [rbx + 1]              // lea leaves the flags alone
    lea rcx, [rcx + 2]
    lea rdx, [rdx + 3]
    lea rsi, [rsi + 4]
    lea rdi, [rdi + 5]
    lea rbp, [rbp + 6]
    lea rsp, [rsp + 7]
    lea r8, [r8 + 8]
    lea r9, [r9 + 9]
    lea r10, [r10 + 10]
    lea r11, [r11 + 11]
    lea r12, [r12 + 12]
    lea r13, [r13 + 13]
    lea r14, [r14 + 14]
    lea r15, [r15 + 15]
    cmc
    std
    hlt
