"""A call gate of 32-bit code: from ring 3 to ring 0 with parameters, and back."""

from __future__ import annotations

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Protected32

MACHINE = Machine(Protected32(0x10000, rsp=0x8000), every_instruction=True)


def scenario(guest: Guest) -> None:
    guest.expects_values(0x23, 0x6FE8)  # ESP: under SS, ESP, two parameters, CS, EIP
    guest.expects_values(0x24, 0x8)
    guest.expects_values(0x25, 0x1B)
    guest.expects_values(0x26, 0x22)
    guest.expects_values(0x27, 0x5FF8)
    guest.expects_values(0x20, 0x33)
    guest.expects_values(0x21, 0x6000)
    guest.expects_values(0x22, 0x1B)
    guest.halts()
