"""What a fork costs: only memory that its guest writes, and about as much time as a bare machine."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from requirements import require
from vmm_arch.selftest.x86_64.harness import AnyBackend
from vmm_arch.snapshot.snapshot import MachineSnapshot
from vmm_arch.x86_64.entry import RealMode
from vmm_arch.x86_64.exits import IoIn, IoOut

PAGE = 0x1000
MEMORY = 64 << 20
FORKS = 100
# again: in ax, 0x10; mov cx, ax; mov di, 0x2000; next: inc byte [di]; add di, 0x1000; loop next;
# mov al, [0x2000]; out 0x11, al; jmp again
WRITES = bytes.fromhex("e5 10 89 c1 bf 00 20 fe 05 81 c7 00 10 e2 f8 a0 00 20 e6 11 eb ea")


@pytest.fixture
def snapshot(arch: AnyBackend) -> Iterator[MachineSnapshot]:
    require(sys.platform == "linux", "no smaps")
    with arch.GuestMemory(MEMORY) as memory, arch.Vm(memory) as vm:
        for at in range(0, MEMORY, 8 * PAGE):  # an eighth of memory has something in it
            memory.write(at, b"\x55" * PAGE)
        memory.write(0x1000, WRITES)
        memory.write(0x2000, b"\7")
        arch.configure_vcpu(vm.vcpus[0], RealMode(0x1000))
        taken: Any = vm.take_snapshot()
    with taken:
        yield taken


def write(vm: Any, pages: int) -> int:
    """Have a guest write so many pages; return what it then finds in the first."""
    asks = vm.vcpus[0].run()
    assert isinstance(asks, IoIn)
    asks.complete(pages)
    tells = vm.vcpus[0].run()
    assert isinstance(tells, IoOut)
    return tells.value


def own_memory(*memories: Any) -> list[int]:
    """Bytes of each guest memory that are its alone: anonymous pages of all its mappings."""
    starts = [memory.host_address(memory.regions[0]) for memory in memories]
    found = dict.fromkeys(sorted(starts), 0)
    owner = None
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if bounds := re.match(r"([0-9a-f]+)-[0-9a-f]+ ", line):
            at = int(bounds[1], 16)
            owner = next((start for start in found if start <= at < start + MEMORY), None)
        elif owner is not None and line.startswith("Anonymous:"):
            found[owner] += int(line.split()[1]) << 10
    return [found[start] for start in starts]


def resident() -> int:
    """Bytes of this process's own memory: not those of files, which are shared."""
    found = re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) << 10


def test_a_fork_has_only_what_it_writes(arch: AnyBackend, snapshot: MachineSnapshot) -> None:
    with snapshot.fork() as vm:
        assert own_memory(vm.memory) == [0]
        for pages in (1, 7, 12):
            write(vm, pages)
            assert own_memory(vm.memory) == [pages * PAGE]
        vm.memory.write(0x10_0000, b"host")
        assert own_memory(vm.memory) == [13 * PAGE]
        assert vm.memory.read(0, MEMORY)  # to read costs nothing
        assert own_memory(vm.memory) == [13 * PAGE]


def test_a_hundred_forks_at_once(arch: AnyBackend, snapshot: MachineSnapshot) -> None:
    if arch.MACHINES_PER_PROCESS == 1:
        return
    stored = os.fstat(snapshot.memory.descriptor).st_blocks
    with ExitStack() as stack:
        before = resident()
        machines = [stack.enter_context(snapshot.fork()) for _ in range(FORKS)]
        for number, vm in enumerate(machines):
            vm.memory.write(0x2000, bytes([number]))
        for rounds in range(1, 4):
            assert [write(vm, 3) for vm in machines] == [n + rounds for n in range(FORKS)]
        assert own_memory(*(vm.memory for vm in machines)) == [3 * PAGE] * FORKS
        for vm in machines:
            assert vm.memory.read(0x3000, 1) == b"\3"
        grown = resident() - before
        assert grown < FORKS * (3 * PAGE + 0x20000), "about what they wrote, and their objects"
        # The hypervisor may read ahead in a few small holes, which makes pages of them, once.
        assert os.fstat(snapshot.memory.descriptor).st_blocks - stored <= 16 * PAGE // 512
    with snapshot.fork() as vm:
        assert write(vm, 1) == 8
