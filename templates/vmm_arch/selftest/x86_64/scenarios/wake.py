"""A halted guest goes on after an interrupt, and after an NMI, that the host injects."""

from __future__ import annotations

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import RealMode

MACHINE = Machine(RealMode(0x1000))


def scenario(guest: Guest) -> None:
    guest.halts()
    guest.vcpu.inject_interrupt(0x30)
    guest.expects_out(0x11, 1, 1)
    guest.expects_out(0x10, 1, 1)
    guest.halts()
    guest.vcpu.inject_nmi()
    guest.expects_out(0x11, 1, 2)
    guest.expects_out(0x10, 1, 3)
    guest.halts()
