"""The pages that a guest has written are reported once each, and never those that the host wrote.

A page that the guest only reads may be among them the first time: KVM maps it for writing too.
"""

from __future__ import annotations

from vmm_arch.selftest.harness import ScenarioFailed, agree
from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import RealMode
from vmm_arch.x86_64.exits import IoIn

MACHINE = Machine(RealMode(0x1000), track_dirty=True)
CODE, ONLY_READ, HOSTS = 0x1000, 0x6000, 0xB000
TEXT = b"port"


def scenario(guest: Guest) -> None:
    vm = guest.vm
    guest.memory.write(HOSTS, b"the host's")

    guest.expects_out(0x10, 1, 0)
    found = [page for page in vm.dirty_pages() if page not in (CODE, ONLY_READ)]
    agree("pages written at first", found, [0x5000, 0x7000])
    agree("pages written since", vm.dirty_pages(), [])
    guest.expects_out(0x10, 1, 1)
    agree("pages written then", vm.dirty_pages(), [0x9000, 0xA000])

    # A page that INS writes counts when it is written, not when the port is read.
    given = 0
    while given < len(TEXT):
        exit = guest.run()
        if not isinstance(exit, IoIn):
            raise ScenarioFailed(f"expected INS, but the vCPU returned {exit!r}")
        if given == 0:
            vm.dirty_pages()
        exit.complete(TEXT[given : given + exit.count])
        given += exit.count
    guest.expects_out(0x10, 1, 1)
    guest.has_memory(0xCFFE, TEXT)
    agree("pages written with the answer", vm.dirty_pages(), [0xC000, 0xD000])
    guest.halts()
    agree("pages written at the end", vm.dirty_pages(), [])
