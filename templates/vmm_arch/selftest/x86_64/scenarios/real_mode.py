"""16-bit code: arithmetic, the stack, memory through segments up to 1 MiB and a far call."""

from __future__ import annotations

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import RealMode

MACHINE = Machine(RealMode(0x1000, rsp=0x8000))


def scenario(guest: Guest) -> None:
    guest.has_registers(rip=0x1000, rsp=0x8000, rflags=0x2)

    guest.halts()

    product = 1234 * 567
    guest.has_registers(rsi=product & 0xFFFF, rdi=product >> 16)
    guest.has_registers(rcx=product // 1000, rbx=product % 1000)
    guest.has_registers(rbp=0x100, rsp=0x8000)  # from the far function, and back from it
    guest.has_memory(0x20010, bytes.fromhex("0d f0 fe ca"))
    guest.has_memory(0x100000, b"\x5a")
