"""Virtual 8086 mode: 16-bit code in a 32-bit system, until an exception."""

from __future__ import annotations

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Protected32

MACHINE = Machine(Protected32(0x10000, rsp=0x8000), every_instruction=True)


def scenario(guest: Guest) -> None:
    guest.expects_out(0x20, 1, 0x77)
    for port, value in enumerate((8, 0x500, 0x23000, 0x100, 0x300, 0x1234, 0), start=0x21):
        guest.expects_values(port, value)
    guest.halts()
