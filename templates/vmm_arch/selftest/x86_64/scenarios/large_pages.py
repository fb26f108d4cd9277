"""Pages of 2 MiB, and what the processor notes in their entries."""

from __future__ import annotations

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64

MACHINE = Machine(Long64(0x10000, rsp=0x8000))


def scenario(guest: Guest) -> None:
    guest.expects_values(0x10, 0xA3, 0xE3, 0xABCDEF01)
    guest.halts()
