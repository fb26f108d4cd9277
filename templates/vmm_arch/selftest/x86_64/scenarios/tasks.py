"""Hardware tasks of 32-bit code: called, nested, and returned from."""

from __future__ import annotations

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Protected32

MACHINE = Machine(Protected32(0x10000, rsp=0x8000), every_instruction=True)


def scenario(guest: Guest) -> None:
    guest.expects_values(0x20, 0x1111)
    guest.expects_values(0x21, 0x4002)  # RFLAGS.NT
    guest.expects_values(0x22, 0x20)
    guest.expects_values(0x23, 0x18)
    guest.expects_values(0x10, 0x2222, 0x18, 0x3333)
    guest.expects_values(0x11, 0x19)  # CR0.TS
    guest.halts()
