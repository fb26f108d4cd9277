# The first sector of a disk, which loads a Linux kernel from the sectors behind it and enters it.
# disk.py lays the disk out, so that nothing is left to find, to look at or to decide here: a table
# says where in memory the next chunks of the disk belong, section by section.
#
# The BIOS loads it to 0x7c00 with the disk's number in %dl, and has the two functions that it takes:
# INT 13h AH=42h reads sectors by their number (Phoenix' Enhanced Disk Drive specification), and
# INT 15h AH=87h copies to where real mode does not reach (IBM's PC/AT technical reference).

        .set    CHUNK, 0x4000           # bytes that are read at a time, as disk.py has them
        .set    SECTORS, CHUNK / 512
        .set    BUFFER, 0x10000         # where they are read to
        .set    SETUP_SEGMENT, 0x9000   # where disk.py has the kernel's real-mode code loaded to
        .set    SETUP_ENTRY, 0x9020     # boot.rst: 0x20 paragraphs further on
        .set    SETUP_STACK, 0x9000     # the end of its heap
        .set    COM1, 0x3f8

        .code16
        .text
        xor     %ax, %ax
        mov     %ax, %ds
        mov     %ax, %es
        mov     %ax, %ss
        mov     $0x7c00, %sp
        cld
        mov     $table, %bp             # what has a base of %bp is in %ss, which is 0 as well

section:
        cmpl    $0, 4(%bp)              # how many chunks are left of this section
        je      next
        mov     $packet, %si
        mov     $0x42, %ah
        int     $0x13
        jc      failed
        mov     (%bp), %eax             # where the chunk belongs
        mov     %ax, to_15_0
        shr     $16, %eax
        mov     %al, to_23_16
        mov     %ah, to_31_24
        mov     $descriptors, %si
        mov     $CHUNK / 2, %cx
        mov     $0x87, %ah
        int     $0x15
        jc      failed
        addl    $CHUNK, (%bp)
        addl    $SECTORS, sector
        decl    4(%bp)
        jmp     section
next:
        add     $8, %bp
        cmpl    $0, (%bp)               # behind the last section
        jne     section

        cli                             # boot.rst: segments, stack and entry of the 16-bit code
        mov     $SETUP_SEGMENT, %ax
        mov     %ax, %ds
        mov     %ax, %es
        mov     %ax, %fs
        mov     %ax, %gs
        mov     %ax, %ss
        mov     $SETUP_STACK, %sp
        ljmp    $SETUP_ENTRY, $0

failed:
        mov     $message, %si
        mov     $COM1, %dx
0:      lodsb
        out     %al, (%dx)
        test    %al, %al
        jnz     0b
        cli
        hlt

message:
        .asciz  "boot sector: the BIOS cannot read the disk\n"

packet:                                 # for INT 13h
        .byte   16, 0
        .word   SECTORS
        .word   0, BUFFER >> 4          # offset and segment
sector: .quad   1                       # the one behind this

descriptors:                            # for INT 15h: of memory to copy from and to
        .fill   16, 1, 0
        .word   CHUNK - 1, BUFFER & 0xffff
        .byte   BUFFER >> 16, 0x93, 0, 0
        .word   CHUNK - 1
to_15_0:
        .word   0
to_23_16:
        .byte   0, 0x93, 0
to_31_24:
        .byte   0
        .fill   16, 1, 0                # where the BIOS makes those of its code and its stack

table:                                  # for each section 32-bit address and count; disk.py adds it
