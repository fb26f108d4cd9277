"""Guests on huge pages: reserved ones, if two are free on this host, and transparent ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from requirements import require
from vmm_arch.selftest.x86_64.harness import AnyBackend
from vmm_arch.x86_64.entry import RealMode
from vmm_arch.x86_64.exits import IoOut

FREE = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")


@pytest.mark.parametrize("huge_pages", [2 << 20, "transparent"])
def test_a_guest_runs_on_huge_pages(arch: AnyBackend, huge_pages: Any) -> None:
    if huge_pages == 2 << 20:
        free = int(FREE.read_text()) if FREE.exists() else 0
        require(free >= 2, "fewer than two huge pages are free")
    with arch.GuestMemory(4 << 20, huge_pages=huge_pages) as memory, arch.Vm(memory) as vm:
        # inc byte [0x2000]; mov al, [0x2000]; out 0x11, al
        memory.write(0x1000, bytes.fromhex("fe 06 00 20 a0 00 20 e6 11"))
        arch.configure_vcpu(vm.vcpus[0], RealMode(0x1000))
        tells = vm.vcpus[0].run()
        assert isinstance(tells, IoOut)
        assert (tells.value, memory.read(0x2000, 1)) == (1, b"\1")
