"""Decimal arithmetic of 16-bit code."""

from __future__ import annotations

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import RealMode

MACHINE = Machine(RealMode(0x1000, rsp=0x8000), every_instruction=True)


def scenario(guest: Guest) -> None:
    for value in (0x47, 0x00, 0x27, 0x105, 0x106, 0x603, 63, 0xA0B):
        guest.expects_out(0x10, 2, value)  # daa, daa, das, aaa, aas, aam, aad, aam 16
    guest.halts()
