/* A kernel to be debugged: two vCPUs count, each in a variable of its own. */

volatile unsigned long counters[2];
volatile unsigned long watched;
volatile int stop;

unsigned long add(unsigned long a, unsigned long b)
{
    unsigned long sum = a + b;
    return sum;
}

void work(unsigned long number)
{
    for (unsigned long i = 1; !stop; i++) {
        counters[number] = add(counters[number], 1);
        if (i % 8 == 0)
            watched = i;
    }
}

void power_off(void)
{
    for (;;) /* what ACPI's sleep control register is written */
        __asm__ volatile("outb %0, %1" : : "a"((unsigned char)0x34), "d"((unsigned short)0x600));
}

__attribute__((noreturn)) void kernel(void)
{
    work(0);
    power_off();
    __builtin_unreachable();
}

__attribute__((noreturn)) void second(void)
{
    work(1);
    for (;;)
        __asm__ volatile("hlt");
}

/* The stacks are below the code; the vCPU's own is not known to whoever enters. */
__asm__(".globl _start\n"
        "_start:\n"
        "    movl $0x1f0000, %esp\n"
        "    xorl %ebp, %ebp\n"
        "    call kernel\n"
        ".globl _second\n"
        "_second:\n"
        "    movl $0x1e0000, %esp\n"
        "    xorl %ebp, %ebp\n"
        "    call second\n");
