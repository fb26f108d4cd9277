"""Reads and writes outside memory, from 32-bit code."""

from __future__ import annotations

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Protected32

DEVICE = 0xD000_0000

MACHINE = Machine(Protected32(0x10000))


def scenario(guest: Guest) -> None:
    guest.expects_mmio_write(DEVICE + 1, 1, 0x11)
    guest.expects_mmio_write(DEVICE + 2, 2, 0x2211)
    guest.expects_mmio_write(DEVICE + 4, 4, 0x44332211)
    guest.expects_mmio_read(DEVICE + 1, 1, answer=0xA5)
    guest.expects_mmio_read(DEVICE + 2, 2, answer=0xBEEF)
    guest.expects_mmio_read(DEVICE + 4, 4, answer=0xDEADBEEF)
    guest.expects_mmio_read(DEVICE + 8, 4, answer=1000)
    guest.expects_mmio_write(DEVICE + 8, 4, 1005)
    guest.expects_mmio_read(DEVICE + 0xC, 4, answer=None)
    guest.halts()

    guest.has_registers(rax=0xA5, rcx=0xBEEF, rdx=0xDEADBEEF, rsi=0xFFFFFFFF)
