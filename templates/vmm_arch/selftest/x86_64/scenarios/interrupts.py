"""Interrupts that the host injects, without an irqchip."""

from __future__ import annotations

from vmm_arch.selftest.harness import agree
from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import RealMode
from vmm_arch.x86_64.exits import InterruptWindow

MACHINE = Machine(RealMode(0x1000))


def scenario(guest: Guest) -> None:
    vcpu = guest.vcpu

    guest.expects_out(0x10, 1, 1)
    vcpu.request_interrupt_window(True)
    for _ in range(2):  # until it is disabled
        exit = guest.run()
        agree("the exit while interrupts are enabled", type(exit), InterruptWindow)
    vcpu.request_interrupt_window(False)
    vcpu.inject_interrupt(0x20)
    guest.expects_out(0x11, 1, 0x20)
    guest.expects_out(0x10, 1, 2)

    guest.expects_out(0x10, 1, 3)
    vcpu.inject_nmi()
    guest.expects_out(0x11, 1, 0x80)
    guest.halts()
