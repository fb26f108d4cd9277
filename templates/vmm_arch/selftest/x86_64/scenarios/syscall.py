"""SYSCALL and SYSRET: selectors, flags, and the return addresses."""

from __future__ import annotations

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64

MACHINE = Machine(Long64(0x10000, rsp=0x8000), every_instruction=True)


def scenario(guest: Guest) -> None:
    for at, told in ((10, 1), (25, 2)):
        guest.expects_values(0x20, 0x202)  # without the flags of the mask
        guest.expects_values(0x21, 0x8)
        guest.expects_values(0x22, 0x10)
        guest.expects_values(0x23, at)
        guest.expects_values(0x24, 0x603)  # as the caller had them
        guest.expects_values(0x25, told)
    guest.halts()
