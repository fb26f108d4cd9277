"""32-bit code with flat segments: memory beyond 1 MiB, a usable descriptor table."""

from __future__ import annotations

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Protected32
from vmm_arch.x86_64.tables import CODE_SELECTOR, DATA_SELECTOR, TSS_SELECTOR

MACHINE = Machine(Protected32(0x10000, rsp=0x8000), memory=0x40_0000)

CR0_PE = 0x1
CR0_ET = 0x10


def scenario(guest: Guest) -> None:
    guest.expects_out(0x10, 4, 0x89ABCDEF)
    guest.expects_out(0x10, 2, CODE_SELECTOR)
    guest.expects_out(0x10, 2, DATA_SELECTOR)
    guest.expects_out(0x10, 2, DATA_SELECTOR)
    guest.expects_out(0x10, 2, TSS_SELECTOR)
    guest.expects_out(0x10, 4, CR0_PE | CR0_ET)
    guest.halts()

    guest.has_memory(0x20_0000, bytes.fromhex("ef cd ab 89"))
    guest.has_memory(0x21_0000, b"\x11" * 64 + bytes(4))
    guest.has_registers(rdi=0x21_0040, rcx=0, rsp=0x8000)
