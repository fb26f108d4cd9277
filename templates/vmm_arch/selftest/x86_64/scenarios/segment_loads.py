"""Selectors that cannot be loaded: the exceptions and their error codes."""

from __future__ import annotations

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Protected32

MACHINE = Machine(Protected32(0x10000, rsp=0x8000), every_instruction=True)


def scenario(guest: Guest) -> None:
    for vector, error in ((11, 0x30), (12, 0x30), (13, 0x8), (13, 0x1000)):
        guest.expects_out(0x20, 1, vector)
        guest.expects_values(0x21, error)
    guest.halts()
