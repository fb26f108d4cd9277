"""Floating point with the x87: rounding, infinity, its control and status words."""

from __future__ import annotations

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64

MACHINE = Machine(Long64(0x10000, rsp=0x8000), every_instruction=True)


def scenario(guest: Guest) -> None:
    guest.expects_values(0x10, 0x40200000, 2)  # 2.5, rounded to the even number
    guest.expects_values(0x11, 0x4)  # divided by zero
    guest.expects_values(0x10, 0x80000000, 0x7FFF)  # infinity
    guest.expects_values(0x10, 0x667F3BCC, 0x3FF6A09E)  # the square root of 2, towards zero
    guest.expects_values(0x10, 141, 1)
    guest.expects_values(0x11, 0)
    guest.halts()
