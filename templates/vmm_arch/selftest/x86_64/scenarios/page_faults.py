"""Page faults: what CR2 and the error code say, and that a mended page can be used."""

from __future__ import annotations

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64

PRESENT, WRITE, FETCH = 1 << 0, 1 << 1, 1 << 4
"""Bits of the error code (Intel SDM volume 3, 4.7)."""
PAGE = 0x4000_0000

MACHINE = Machine(Long64(0x10000, rsp=0x8000))


def scenario(guest: Guest) -> None:
    for error, offset in ((0, 0x10), (WRITE, 0x20), (PRESENT | WRITE, 0x30), (PRESENT | FETCH, 0)):
        guest.expects_exception(14, error=error)
        guest.expects_values(0x23, PAGE + offset)
    guest.expects_values(0x10, 0x8063)
    guest.halts()
