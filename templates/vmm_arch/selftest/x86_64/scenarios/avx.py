"""XSAVE and AVX: 256-bit registers are computed with, saved, cleared, and restored."""

from __future__ import annotations

import struct

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64

MACHINE = Machine(Long64(0x10000, rsp=0x8000), every_instruction=True, features=("xsave", "avx"))


def scenario(guest: Guest) -> None:
    guest.expects_values(0x10, 1, 7)
    guest.expects_values(0x11, 576 + 256)  # bytes of x87, SSE and the header; of AVX
    guest.expects_values(0x12, 6)
    guest.halts()
    doubled = struct.pack("<4d", 2.0, 5.0, -6.0, 2e10)
    guest.has_memory(0x3000, doubled)
    guest.has_memory(0x3020, doubled[16:])
    guest.has_memory(0x3040, bytes(32))
    guest.has_memory(0x3060, doubled)
