"""A guest that computes in everything it has is reset again and again, and does the same each time."""

from __future__ import annotations

from vmm_arch.selftest.harness import ScenarioFailed, agree
from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64

MACHINE = Machine(Long64(0x10000), track_dirty=True)
ROUNDS, RESETS = 7, 10
HOSTS = 0x5000


def scenario(guest: Guest) -> None:
    vm = guest.vm
    values(guest)
    with vm.take_snapshot() as snapshot:
        memory = contents(guest)
        expected = values(guest)
        for number in range(RESETS):
            vm.memory.write(HOSTS, b"the host's")
            with vm.memory.view(HOSTS + 0x1800, 0x1000) as view:
                view[:] = bytes([number + 1]) * len(view)
            vm.reset_to(snapshot, tsc=number % 2 == 1)
            if differences := snapshot.state.diff(vm.save()):
                raise ScenarioFailed(f"after reset {number}: {differences}")
            agree(f"memory after reset {number}", contents(guest) == memory, True)
            agree(f"what follows reset {number}", values(guest), expected)
            vm.reset_to(snapshot)  # and straight away, from the middle of an exit
            agree(f"what follows reset {number}, again", values(guest), expected)


def values(guest: Guest) -> list[int]:
    return [guest.sends(0x10, 4) for _ in range(ROUNDS)]


def contents(guest: Guest) -> list[bytes]:
    memory = guest.vm.memory
    return [memory.read(region.address, region.size) for region in memory.regions]
