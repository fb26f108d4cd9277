"""Ring 3 of 64-bit code: what it may not do leads to ring 0, on the stack that is meant for it."""

from __future__ import annotations

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64

MACHINE = Machine(Long64(0x10000, rsp=0x8000))


def scenario(guest: Guest) -> None:
    for offset in (0, 4, 6, 8):  # ud2, in, cli, hlt
        guest.expects_values(0x20, offset)
        guest.expects_values(0x21, 0x23)  # CS, RSP and SS of ring 3
        guest.expects_values(0x22, 0x6000)
        guest.expects_values(0x23, 0x1B)
        guest.expects_values(0x24, 0x7000 - 5 * 8)
        guest.expects_values(0x25, 0x8)
    guest.halts()
