"""Exceptions of 64-bit code: vectors, error codes, and where they are taken."""

from __future__ import annotations

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64

MACHINE = Machine(Long64(0x10000, rsp=0x8000))


def scenario(guest: Guest) -> None:
    guest.expects_values(0x10, 1)
    regs = guest.vcpu.get_regs()
    guest.expects_exception(6, at=regs.rbx)
    guest.expects_exception(0, at=regs.rbp)
    guest.expects_exception(13, at=regs.r8)
    guest.expects_exception(13, error=0x58, at=regs.r9)
    guest.expects_exception(13, at=regs.r10)
    guest.expects_values(0x10, 2)
    guest.halts()
