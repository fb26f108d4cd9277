"""Single bits, exchanges with memory, and conditional moves."""

from __future__ import annotations

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64

MACHINE = Machine(Long64(0x10000, rsp=0x8000))


def scenario(guest: Guest) -> None:
    guest.expects_values(0x10, 8, 23, 1, 1 << 31, 0, 8)  # bsf, bsr, bt, bts, btr, btc
    guest.expects_values(0x10, 1 << 5, 1 << 31)  # bts beyond the operand
    guest.expects_values(0x10, 7, 12)  # xadd
    guest.expects_values(0x10, 0x22, 1, 0x22)  # cmpxchg
    guest.expects_values(0x10, 4, 3, 12, 4)  # cmpxchg8b, xadd, xchg
    guest.expects_values(0x10, 0xC0C0, 0xC0C0)  # cmovl; cmovb, which does not
    guest.expects_values(0x10, 0x44332211, 0x5A, 0xFFFFFFFF, 3)  # bswap, xlatb, movsx, loop
    guest.halts()
