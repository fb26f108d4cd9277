"""String instructions on memory: in all widths, both ways, stopped early, overlapping."""

from __future__ import annotations

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64

MACHINE = Machine(Long64(0x10000, rsp=0x8000))


def scenario(guest: Guest) -> None:
    guest.expects_out(0x10, 1, 0x88)
    guest.halts()
    guest.has_registers(
        rbx=0x21100,
        r8=0x200C9,  # after the byte that differs
        r9=256 - 201,
        r10=0x20081,
        r11=0x22FFF,
        r12=0x0F0E0D0C0B0A0908,
        r13=0x1_0000_0000,
        r14=0x1122334455667788,
    )
    numbers = bytes(range(256))
    guest.has_memory(0x21000, numbers[:200] + b"\0" + numbers[201:])
    guest.has_memory(0x22000, bytes.fromhex("34 12") * 100 + bytes(2))
    guest.has_memory(0x23000, numbers)
    guest.has_memory(0x24000, bytes(16))
