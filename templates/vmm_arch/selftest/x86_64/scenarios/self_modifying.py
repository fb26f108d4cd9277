"""Code that is changed before it is executed, also through another mapping."""

from __future__ import annotations

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64

MACHINE = Machine(Long64(0x10000, rsp=0x8000))


def scenario(guest: Guest) -> None:
    for value in (3, 2, 1):
        guest.expects_out(0x10, 1, value)
    for value in (0, 0x42, 0x43, 0x44):
        guest.expects_out(0x11, 1, value)
    guest.halts()
