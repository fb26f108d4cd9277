"""Port I/O in all widths, in and out, answered and ignored."""

from __future__ import annotations

from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import RealMode

MACHINE = Machine(RealMode(0x1000))


def scenario(guest: Guest) -> None:
    guest.expects_out(0x11, 1, 0x11)
    guest.expects_out(0x12, 2, 0x2211)
    guest.expects_out(0x13, 4, 0x44332211)
    guest.expects_out(0x3F8, 1, 0x11)
    guest.expects_out(0xFFF0, 2, 0x2211)
    guest.expects_out(0xABC, 4, 0x44332211)

    guest.expects_in(0x11, 1, answer=0x99)
    guest.expects_out(0x20, 4, 0x44332299)
    guest.expects_in(0x12, 2, answer=0xBBAA)
    guest.expects_out(0x20, 4, 0x4433BBAA)
    guest.expects_in(0x13, 4, answer=0xDEADBEEF)
    guest.expects_out(0x20, 4, 0xDEADBEEF)

    guest.expects_in(0x3F8, 1, answer=None)
    guest.expects_out(0x20, 4, 0xDEADBEFF)
    guest.expects_in(0xFFF0, 2, answer=None)
    guest.expects_out(0x20, 4, 0xDEADFFFF)
    guest.expects_in(0xABC, 4, answer=None)
    guest.expects_out(0x20, 4, 0xFFFFFFFF)
    guest.halts()
