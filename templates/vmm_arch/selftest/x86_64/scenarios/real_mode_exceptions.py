"""Exceptions and software interrupts of real mode, through its table of vectors."""

from __future__ import annotations

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import RealMode

MACHINE = Machine(RealMode(0x1000, rsp=0x8000), every_instruction=True)


def scenario(guest: Guest) -> None:
    zero, overflow, interrupts = 0x042, 0x892, 0x200
    for vector, flags in ((0, zero), (3, zero), (4, overflow), (5, overflow), (6, overflow)):
        guest.expects_out(0x20, 1, vector)
        guest.expects_out(0x21, 2, flags)
    guest.expects_out(0x20, 1, 0x42)
    guest.expects_out(0x21, 2, overflow | interrupts)
    guest.expects_out(0x10, 2, overflow | interrupts)
    guest.halts()
