"""64-bit code: 64-bit registers, memory through the identity page tables."""

from __future__ import annotations

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64
from vmm_arch.x86_64.tables import CODE_SELECTOR

MACHINE = Machine(Long64(0x10000, rsp=0x8000), memory=0x40_0000)

EFER_LME_LMA = 0x500


def scenario(guest: Guest) -> None:
    guest.expects_out(0x10, 4, EFER_LME_LMA)
    guest.expects_out(0x10, 4, 0x9000)  # the page tables
    guest.expects_out(0x10, 2, CODE_SELECTOR)
    guest.halts()

    guest.has_registers(
        r8=0xEDCBA9876543210F,
        r9=0xFFFFFFFF,
        r10=9 * 0xFFFFFFFF + 1,
        r11=2**64 - 5,
        r12=0x456789ABCDEF0123,
        r13=0x80,
        r14=2**64 - 0x80,
        r15=0xF0DEBC9A78563412,
        rbp=0xEDCBA98765432110,
        rsp=0x8000,
    )
    guest.has_memory(0x3F_FFF8, (0xEDCBA9876543210F).to_bytes(8, "little"))
