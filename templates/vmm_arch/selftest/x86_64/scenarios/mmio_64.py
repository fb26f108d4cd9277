"""Reads and writes outside memory, from 64-bit code."""

from __future__ import annotations

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64

DEVICE = 0xD000_0000
VALUE = 0x8877665544332211

MACHINE = Machine(Long64(0x10000))


def scenario(guest: Guest) -> None:
    guest.expects_mmio_write(DEVICE + 1, 1, VALUE & 0xFF)
    guest.expects_mmio_write(DEVICE + 2, 2, VALUE & 0xFFFF)
    guest.expects_mmio_write(DEVICE + 4, 4, VALUE & 0xFFFFFFFF)
    guest.expects_mmio_write(DEVICE + 8, 8, VALUE)
    guest.expects_mmio_write(DEVICE + 0x10, 8, 2**64 - 2)

    guest.expects_mmio_read(DEVICE + 1, 1, answer=0xA5)
    guest.expects_mmio_read(DEVICE + 2, 2, answer=0x8001)
    guest.expects_mmio_read(DEVICE + 4, 4, answer=0xDEADBEEF)
    guest.expects_mmio_read(DEVICE + 8, 8, answer=0x0123456789ABCDEF)
    guest.expects_mmio_read(DEVICE + 3, 1, answer=0x3C)

    guest.expects_mmio_read(DEVICE + 1, 1, answer=None)
    guest.expects_mmio_read(DEVICE + 2, 2, answer=None)
    guest.expects_mmio_read(DEVICE + 4, 4, answer=None)
    guest.expects_mmio_read(DEVICE + 8, 8, answer=None)

    guest.expects_mmio_read(DEVICE + 0x18, 8, answer=1)
    guest.expects_mmio_write(DEVICE + 0x18, 8, VALUE ^ 1)
    guest.expects_mmio_read(DEVICE + 0x20, 8, answer=0x7777)
    guest.expects_mmio_write(DEVICE + 0x20, 8, VALUE)

    for i, four in enumerate((b"a st", b"ring", b" of ", b"text")):
        guest.expects_mmio_write(DEVICE + 0x40 + 4 * i, 4, int.from_bytes(four, "little"))
    guest.halts()

    guest.has_registers(r8=0xA5, r9=2**64 - 0x7FFF, r10=0xDEADBEEF, r11=0x0123456789ABCDEF)
    guest.has_registers(r12=0xFF, r13=0xFFFF, r14=0xFFFFFFFF, r15=2**64 - 1)
    guest.has_registers(rax=0x7777, rdi=DEVICE + 0x50, rcx=0)
