"""Ten thousand exits: none is lost, none comes twice."""

from __future__ import annotations

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import RealMode

MACHINE = Machine(RealMode(0x1000), patience=60)


def scenario(guest: Guest) -> None:
    for number in range(1, 10_001):
        guest.expects_out(0x10, 4, number)
    guest.halts()
