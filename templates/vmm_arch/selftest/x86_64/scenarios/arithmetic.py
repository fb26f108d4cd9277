"""Arithmetic of 8 to 64 bits: results, and the flags as far as they are defined."""

from __future__ import annotations

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64

RESULTS = (
    (0x80000000, 0x894),  # add
    (0x0, 0x55),  # add
    (0x10, 0x10),  # adc
    (0xFFFFFFFF, 0x95),  # sub
    (0x7FFFFFFF, 0x814),  # sbb
    (0x0, 0x845),  # add
    (0x12340000, 0x95),  # cmp
    (0x80, 0x890),  # inc
    (0x80000000, 0x885),  # neg
    (0x0, 0x44),  # xor
    (0x80F0, 0x84),  # and
    (0x1, 0x801),  # mul
    (0xFFFFFFF1, 0x0),  # imul
    (0x0, 0x801),  # imul
    (0x24924925, None),  # div
    (0x2, None),  # its remainder
    (0xFFFFFFF2, None),  # idiv
    (0xFFFFFFFE, None),  # its remainder
    (0x2, 0x801),  # shl
    (0xC0000000, 0x85),  # sar
    (0x40000000, 0x805),  # shr
    (0x80000001, 0x800),  # rcl
    (0x80000000, 0x801),  # ror
    (0x345678AB, None),  # shld
    (0xF0112345, None),  # shrd
    (0x0, 0x845),  # add
    (0xFFFFFFFD, None),  # idiv
    (0xFFFFFF80, None),  # cbw, cwde
)
"""The lower half of each result, and OF, SF, ZF, AF, PF and CF (bits 11, 7, 6, 4, 2 and 0)."""

MACHINE = Machine(Long64(0x10000, rsp=0x8000))


def scenario(guest: Guest) -> None:
    for result, flags in RESULTS:
        guest.expects_values(0x10, result)
        if flags is not None:
            guest.expects_values(0x11, flags)
    guest.halts()
