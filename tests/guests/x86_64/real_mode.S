// Computes in 16 bits: multiplies and divides, uses the stack, writes far beyond 64 KiB through a
// segment, then calls a function in another segment of the same code. What it finds it leaves in
// registers and at 0x20010 and 0xFFFF0 + 0x10.

    .intel_syntax noprefix
    .code16

    mov ax, 1234
    mov bx, 567
    mul bx                          // dx:ax = 1234 * 567 = 0xaad1e
    mov si, ax
    mov di, dx
    mov bx, 1000
    div bx                          // ax = 699, dx = 678
    push ax
    push dx
    pop bx                          // bx = 678
    pop cx                          // cx = 699

    mov ax, 0x2000                  // linear 0x20010
    mov ds, ax
    mov dword ptr ds:[0x10], 0xcafef00d

    mov ax, 0xffff                  // linear 0x100000: above 1 MiB, through the last segment
    mov es, ax
    mov byte ptr es:[0x10], 0x5a

    // Call 0x0100:function - 0x1000: the same byte of code, as another segment sees it.
    .byte 0x9a
    .word function - 0x1000
    .word 0x0100
    hlt

function:
    mov bp, cs                      // bp = 0x100
    .byte 0xcb                      // a far return
