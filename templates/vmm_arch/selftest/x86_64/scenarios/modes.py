"""A guest that goes through all modes by itself, and back to real mode."""

from __future__ import annotations

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import RealMode
from vmm_arch.x86_64.msr import EFER_LMA, EFER_LME
from vmm_arch.x86_64.tables import CR0_ET, CR0_PE

MACHINE = Machine(RealMode(0x1000, rsp=0x8000))


def scenario(guest: Guest) -> None:
    guest.expects_values(0x10, CR0_ET)
    guest.expects_values(0x11, CR0_ET | CR0_PE)
    guest.expects_values(0x12, EFER_LME | EFER_LMA)
    guest.expects_out(0x13, 1, 1)
    guest.expects_values(0x14, EFER_LME)
    guest.expects_out(0x16, 2, 0)
    guest.expects_values(0x15, CR0_ET)
    guest.halts()
