// Floating point with the x87: results as integers and as their bytes go to port 0x10, the status word
// to port 0x11.

    .intel_syntax noprefix
    .code64

    fninit
    mov dword ptr [0x3000], 10
    fild dword ptr [0x3000]
    mov dword ptr [0x3000], 4
    fidiv dword ptr [0x3000]        // 2.5
    fst dword ptr [0x3010]
    mov eax, [0x3010]
    out 0x10, eax
    fistp dword ptr [0x3014]        // to the even one: 2
    mov eax, [0x3014]
    out 0x10, eax
    fld1
    fldz
    fdivp st(1), st                 // by zero: infinity, and the flag
    fnstsw ax
    and eax, 0x4
    out 0x11, eax
    fstp tbyte ptr [0x3020]
    mov eax, [0x3024]
    out 0x10, eax
    movzx eax, word ptr [0x3028]
    out 0x10, eax
    fnclex
    fnstcw [0x3030]
    or word ptr [0x3030], 0xc00     // towards zero
    fldcw [0x3030]
    fld1
    fadd st, st
    fsqrt
    fst qword ptr [0x3038]
    mov eax, [0x3038]
    out 0x10, eax
    mov eax, [0x303c]
    out 0x10, eax
    mov dword ptr [0x3000], 100
    fimul dword ptr [0x3000]
    fistp dword ptr [0x3000]
    mov eax, [0x3000]
    out 0x10, eax
    fldpi
    fld1
    fcomip st, st(1)
    setb al
    movzx eax, al
    out 0x10, eax
    fstp st
    fnstsw ax
    and eax, 0x3800                 // the stack is empty again
    out 0x11, eax
    hlt
