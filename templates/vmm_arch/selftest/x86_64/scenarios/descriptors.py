"""Descriptor tables: their registers, the instructions that check selectors, a local table."""

from __future__ import annotations

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Protected32

MACHINE = Machine(Protected32(0x10000, rsp=0x8000), every_instruction=True)


def scenario(guest: Guest) -> None:
    guest.expects_values(0x10, 0x37, 0, 0x4000)  # sgdt, sidt
    guest.expects_values(0x11, 0x28, 0x20)  # sldt, str
    guest.expects_values(0x12, 0x00C0_9300, 0xFFFF_FFFF, 0xFFF, 0)  # lar, lsl
    guest.expects_values(0x13, 1, 1, 1, 0, 1, 0, 0)  # verr and verw of data, code, read-only, none
    guest.expects_values(0x14, 0x0102_0304, 0x1234_5678, 0x0506_0708, 0x00CF_9300)
    guest.halts()
