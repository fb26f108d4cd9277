"""Page tables of 32-bit code: two levels with large pages, and the three of PAE."""

from __future__ import annotations

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Protected32

MACHINE = Machine(Protected32(0x10000, rsp=0x8000), every_instruction=True)


def scenario(guest: Guest) -> None:
    guest.expects_values(0x10, 0x1234, 0x5678)
    guest.expects_values(0x11, 0x30063, 0x31021, 0xE3)  # accessed, dirty
    guest.expects_values(0x12, 0x9ABC, 0x9ABC, 0x32063)
    guest.halts()
