"""Accesses to addresses without memory: all widths, reads that become writes, and copies."""

from __future__ import annotations

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64

DEVICE = 0xD000_0000

MACHINE = Machine(Long64(0x10000, rsp=0x8000))


def scenario(guest: Guest) -> None:
    guest.expects_mmio_read(DEVICE, 1, answer=0x81)
    guest.expects_out(0x10, 1, 0x81)
    guest.expects_mmio_read(DEVICE + 2, 2, answer=0x8765)
    guest.expects_out(0x10, 2, 0x8765)
    guest.expects_mmio_read(DEVICE + 4, 4, answer=0xCAFEF00D)
    guest.expects_values(0x10, 0xCAFEF00D)
    guest.expects_mmio_read(DEVICE + 8, 8, answer=0x0123456789ABCDEF)
    guest.expects_values(0x10, 0x89ABCDEF, 0x01234567)
    for size, at, answer, value in (
        (1, 0, 0x81, 0x81),
        (1, 0, 0x81, 0xFFFFFF81),
        (2, 2, 0x8765, 0xFFFF8765),
    ):
        guest.expects_mmio_read(DEVICE + at, size, answer=answer)
        guest.expects_values(0x10, value)

    guest.expects_mmio_write(DEVICE + 0x10, 1, 0x11)
    guest.expects_mmio_write(DEVICE + 0x12, 2, 0x2222)
    guest.expects_mmio_write(DEVICE + 0x14, 4, 0x33333333)
    guest.expects_mmio_write(DEVICE + 0x18, 8, 0x4444444455555555)
    guest.expects_mmio_write(DEVICE + 0x20, 8, 2**64 - 2)

    guest.expects_mmio_read(DEVICE + 0x30, 4, answer=0x99)
    guest.expects_mmio_write(DEVICE + 0x30, 4, 0x77)
    guest.expects_values(0x10, 0x99)
    guest.expects_mmio_read(DEVICE + 0x34, 4, answer=0xFFFFFFFE)
    guest.expects_mmio_write(DEVICE + 0x34, 4, 3)
    guest.expects_mmio_read(DEVICE + 0x38, 1, answer=0x01)
    guest.expects_mmio_write(DEVICE + 0x38, 1, 0x81)
    for answer in (9, 8):
        guest.expects_mmio_read(DEVICE + 0x3C, 4, answer=answer)
        guest.expects_out(0x10, 1, 1)

    values = (0x11111111, 0x22222222, 0x33333333)
    for index, value in enumerate(values):
        guest.expects_mmio_read(DEVICE + 0x40 + 4 * index, 4, answer=value)
    for index, value in enumerate(values):
        guest.expects_mmio_write(DEVICE + 0x50 + 4 * index, 4, value)
    guest.halts()
    guest.has_memory(0x3000, b"".join(value.to_bytes(4, "little") for value in values))
