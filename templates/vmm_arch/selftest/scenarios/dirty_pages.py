"""The pages that a guest has written: each told once, and not those that it or the host only reads."""

from __future__ import annotations

from vmm_arch.selftest.harness import Guest, Machine, agree
from vmm_arch.x86_64.entry import RealMode

MACHINE = Machine(RealMode(0x1000), track_dirty=True)


def scenario(guest: Guest) -> None:
    vm = guest.vm
    guest.memory.write(0xB000, b"the host's")

    guest.expects_out(0x10, 1, 0)
    agree("pages written at first", vm.dirty_pages(), [0x5000, 0x7000])
    agree("pages written since", vm.dirty_pages(), [])
    guest.expects_out(0x10, 1, 1)
    agree("pages written then", vm.dirty_pages(), [0x9000, 0xA000])
    guest.halts()
    agree("pages written at the end", vm.dirty_pages(), [])
