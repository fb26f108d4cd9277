"""SSE2: integers, floating point, shuffles, and the flags of MXCSR."""

from __future__ import annotations

import struct

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64

MACHINE = Machine(Long64(0x10000, rsp=0x8000), every_instruction=True)


def scenario(guest: Guest) -> None:
    guest.expects_values(0x10, 0xF0F0, 3, 4)
    guest.expects_values(0x11, 0x20)  # inexact
    guest.expects_values(0x11, 0x4)  # divided by zero
    guest.expects_values(0x10, 1, 0x101)
    guest.halts()
    guest.has_memory(0x3000, struct.pack("<4i", 11, -18, 33, -(2**31)))
    guest.has_memory(0x3010, struct.pack("<4i", -(2**31), 33, -18, 11))
    guest.has_memory(0x3020, struct.pack("<d", 3.5))
