"""Lines of the I/O APIC: edge-triggered, and level-triggered until the host lowers it."""

from __future__ import annotations

from vmm_arch.selftest.harness import agree
from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64

MACHINE = Machine(Long64(0x10000, rsp=0x8000), irqchip=True)


def scenario(guest: Guest) -> None:
    line = guest.vm.set_irq_line
    guest.expects_values(0x10, 1)
    line(5, True)
    guest.expects_values(0x30, 0x51)
    guest.expects_values(0x10, 2)
    line(5, False)
    line(5, True)
    guest.expects_values(0x30, 0x51)
    guest.expects_values(0x10, 3)
    line(10, True)
    guest.expects_values(0x30, 0x52)
    guest.expects_values(0x30, 0x52)  # again, since it is still raised
    line(10, False)  # before the handler's end of interrupt
    # One more may have been under way.
    port, value = guest.sends_anywhere(4)
    if port == 0x30:
        agree("the vector", value, 0x52)
        port, value = guest.sends_anywhere(4)
    agree("the port after the last interrupt", port, 0x10)
    agree("whether interrupts have ended", value in (4, 5), True)
