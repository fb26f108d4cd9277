// Two processors that never rest: each counts, compares clocks with the other, and tells the host how
// often it did; both have a timer, the first sends the second interrupts, one after the other, and
// takes those of a device, in the order in which the device numbers them.
//
// Everything is counted in memory, also what is out of order.

    .intel_syntax noprefix
    .code32

    .set lock, 0x30000
    .set backwards, 0x30004             // how often the clock was earlier
    .set clock, 0x30008                 // the last one that either has seen
    .set sent, 0x30010                  // interrupts from the first to the second
    .set taken, 0x30014
    .set misnumbered, 0x30018           // how often the device's number was not the next one
    .set first, 0x30020                 // of each: rounds, ticks, words to the host; of the first
    .set second, 0x30040                // also the device's number

    .set idt, 0x31000
    .set gdtr, 0x32000                  // for the second, which is in real mode
    .set entry, 0x32008
    .set data, 0x32010

    .set apic, 0xfee00000
    .set DEVICE, 0x31
    .set TIMER, 0x32
    .set NEIGHBOUR, 0x33

    mov esp, 0x2f000
    sgdt [gdtr]
    mov dword ptr [entry], offset second_begins
    mov [entry + 4], cs
    mov [data], ds
    mov eax, offset device
    mov ebx, DEVICE
    call gate
    mov eax, offset timer_of_first
    mov ebx, TIMER
    call gate
    mov eax, offset spurious
    mov ebx, 0xff
    call gate
    mov eax, offset neighbour
    mov ebx, NEIGHBOUR
    call gate
    mov eax, offset timer_of_second
    mov ebx, TIMER + 0x10
    call gate
    lidt [idtr]
    mov al, 0xff
    out 0x21, al                        // no interrupts by the 8259s
    out 0xa1, al
    mov ecx, TIMER
    call use_apic
    mov dword ptr [0xfec00000], 0x10 + 2 * 5
    mov dword ptr [0xfec00010], DEVICE              // line 5, edge-triggered
    mov dword ptr [0xfec00000], 0x11 + 2 * 5
    mov dword ptr [0xfec00010], 0
    mov dword ptr [apic + 0x310], 1 << 24
    mov dword ptr [apic + 0x300], 0x4500            // INIT
    mov ecx, 2000
pause_:
    pause
    dec ecx
    jnz pause_
    mov dword ptr [apic + 0x310], 1 << 24
    mov dword ptr [apic + 0x300], 0x4600 | 0x11     // SIPI to the page 0x11000
started:
    pause
    cmp dword ptr [second], 0
    je started
    sti
first_goes_on:
    mov esi, first
    call round
    jnz first_goes_on                   // most of the time
    mov eax, [sent]
    cmp eax, [taken]
    jne tell
    inc dword ptr [sent]
    mov dword ptr [apic + 0x310], 1 << 24
    mov dword ptr [apic + 0x300], 0x4000 | NEIGHBOUR
tell:
    mov eax, [first + 8]
    inc eax
    mov [first + 8], eax
    out 0x10, eax
    jmp first_goes_on

second_begins:
    mov ax, cs:[data]
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov esp, 0x2e000
    lidt [idtr]
    mov ecx, TIMER + 0x10
    call use_apic
    sti
second_goes_on:
    mov esi, second
    call round
    jnz second_goes_on
    mov eax, [second + 8]
    inc eax
    mov [second + 8], eax
    out 0x14, eax
    test al, 0xf
    jnz second_goes_on
    hlt                                 // until its timer's next tick, or its neighbour's interrupt
    jmp second_goes_on

// A round of the processor with its counts at ESI; ZF after one in 256.
round:
    mov al, 1
    xchg al, [lock]
    test al, al
    jnz unlooked
    lfence
    rdtsc
    cmp edx, [clock + 4]
    ja later
    jb earlier
    cmp eax, [clock]
    jae later
earlier:
    inc dword ptr [backwards]
later:
    mov [clock], eax
    mov [clock + 4], edx
    mov byte ptr [lock], 0
unlooked:
    inc dword ptr [esi]
    test byte ptr [esi], 0xff
    ret

timer_of_first:
    inc dword ptr [first + 4]
    jmp end
timer_of_second:
    inc dword ptr [second + 4]
    jmp end
neighbour:
    inc dword ptr [taken]
    jmp end
device:
    push eax
    in eax, 0x18                        // lowers the line
    dec eax
    cmp eax, [first + 12]
    je numbered
    inc dword ptr [misnumbered]
numbered:
    inc eax
    mov [first + 12], eax
    pop eax
end:
    mov dword ptr [apic + 0xb0], 0
spurious:
    push dword ptr [esp + 8]            // IRET, which KVM's emulator does not have in this mode
    popfd
    retf 4

// Switches the local APIC on, with a timer of 20 ms, if its frequency is KVM's, and vector ECX.
use_apic:
    mov dword ptr [apic + 0xf0], 0x1ff
    mov dword ptr [apic + 0x350], 1 << 16
    mov dword ptr [apic + 0x80], 0
    mov dword ptr [apic + 0x3e0], 0xb
    or ecx, 1 << 17                     // again and again
    mov [apic + 0x320], ecx
    mov dword ptr [apic + 0x380], 20000000
    ret

// Writes the gate of vector EBX, for the handler at EAX.
gate:
    lea edi, [idt + 8 * ebx]
    mov [edi], ax
    mov [edi + 2], cs
    mov word ptr [edi + 4], 0x8e00
    shr eax, 16
    mov [edi + 6], ax
    ret

idtr:
    .word 0x7ff
    .long idt

    .org 0x1000                         // 0x11000
    .code16
    cli
    mov ax, 0x3200
    mov ds, ax
    .att_syntax
    lgdtl 0
    mov %cr0, %eax
    or $1, %al
    mov %eax, %cr0
    ljmpl *8
