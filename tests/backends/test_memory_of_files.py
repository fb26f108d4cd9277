"""Machines whose memory is a file's: copies that are made when the guest writes, and shared pages."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from process_memory import smaps
from requirements import require
from vmm_arch.memory import Region
from vmm_arch.selftest.x86_64.harness import AnyBackend
from vmm_arch.x86_64.entry import RealMode
from vmm_arch.x86_64.exits import IoIn, IoOut

PAGE = 0x1000
SIZE = 1 << 20
CODE, FIRST = 0x1000, 0x2000


def writer(pages: int) -> bytes:
    """Write a byte that port 0x10 gives to so many pages from FIRST on; tell the first and the next."""
    return bytes.fromhex(
        "e4 10"  # in al, 0x10
        f"b9 {pages:02x} 00"  # mov cx, pages
        "bf 00 20"  # mov di, FIRST
        "88 05"  # next: mov [di], al
        "81 c7 00 10"  # add di, 0x1000
        "e2 f8"  # loop next
        "e4 12"  # in al, 0x12
        "a0 00 20"  # mov al, [FIRST]
        "e6 11"  # out 0x11, al
        "8a 05"  # mov al, [di]
        "e6 11"  # out 0x11, al
        "f4"  # hlt
    )


def copied(memory: Any) -> int:
    """How many bytes of the memory are copies of its own, because they were written.

    Not Private_Dirty, which counts a memfd's own pages too where only one mapping has them.
    """
    host = memory.host_address(memory.regions[0])
    return int(smaps(host)["Anonymous"].split()[0]) << 10


@pytest.fixture
def file() -> Iterator[int]:
    """A file of a megabyte without a zero; the tests put code into it."""
    require(sys.platform == "linux", "no memfd and no smaps")
    descriptor = os.memfd_create("guest")
    os.write(descriptor, b"\x55" * SIZE)
    yield descriptor
    os.close(descriptor)


def write_and_read(arch: AnyBackend, memory: Any, value: int) -> Iterator[list[int]]:
    """Run writer()'s code in a machine: stop when all is written, then when the guest read it."""
    with arch.Vm(memory) as vm:
        vcpu = vm.vcpus[0]
        arch.configure_vcpu(vcpu, RealMode(CODE))
        for answer in (value, 0):
            asks = vcpu.run()
            assert isinstance(asks, IoIn)
            asks.complete(answer)
        yield []
        read = []
        for _ in range(2):
            tells = vcpu.run()
            assert isinstance(tells, IoOut)
            read.append(tells.value)
        yield read


def run_all(arch: AnyBackend, memories: list[Any]) -> list[list[int]]:
    """Run it in each memory with the values 1, 2 …, and return what the guests read.

    All write before the first reads, where a process may have several machines.
    """
    guests = [write_and_read(arch, memory, 1 + at) for at, memory in enumerate(memories)]
    if arch.MACHINES_PER_PROCESS is None:
        return list(list(zip(*guests, strict=True))[-1])
    return [list(guest)[-1] for guest in guests]


@pytest.mark.parametrize("pages", [1, 12])
def test_machines_copy_only_what_their_guests_write(
    arch: AnyBackend, file: int, pages: int
) -> None:
    os.pwrite(file, writer(pages), CODE)
    before = os.pread(file, SIZE, 0)
    with ExitStack() as stack:
        memories = [stack.enter_context(arch.GuestMemory(SIZE, file=file)) for _ in range(2)]
        assert run_all(arch, memories) == [[1, 0x55], [2, 0x55]]
        for value, memory in enumerate(memories, start=1):
            assert copied(memory) == pages * PAGE
            content = bytearray(before)
            for page in range(pages):
                content[FIRST + page * PAGE] = value
            assert memory.read(0, SIZE) == content
        assert os.pread(file, SIZE, 0) == before


def test_the_host_and_the_guest_see_one_copy(arch: AnyBackend, file: int) -> None:
    """A page that the guest has read, and the host then writes, is the copy for the guest as well."""
    # next: mov al, [FIRST]; out 0x11, al; jmp next
    os.pwrite(file, bytes.fromhex("a0 00 20 e6 11 eb f9"), CODE)
    with arch.GuestMemory(SIZE, file=file) as memory, arch.Vm(memory) as vm:
        arch.configure_vcpu(vm.vcpus[0], RealMode(CODE))
        for value in (0x55, 1, 2):
            if value != 0x55:
                memory.write(FIRST, bytes([value]))
            tells = vm.vcpus[0].run()
            assert isinstance(tells, IoOut)
            assert tells.value == value
        assert os.pread(file, 1, FIRST) == b"\x55"


def test_machines_share_what_is_shared(arch: AnyBackend, file: int) -> None:
    os.pwrite(file, writer(1), CODE)
    with ExitStack() as stack:
        memories = [
            stack.enter_context(arch.GuestMemory(SIZE, file=file, shared=True)) for _ in range(2)
        ]
        at_once = arch.MACHINES_PER_PROCESS is None
        assert run_all(arch, memories) == [[2 if at_once else 1, 0x55], [2, 0x55]]
        assert [memory.read(FIRST, 1) for memory in memories] == [b"\2", b"\2"]
        assert os.pread(file, 1, FIRST) == b"\2"


def test_machines_continue_from_saved_memory(arch: AnyBackend, tmp_path: Path) -> None:
    """What a guest wrote is saved; two machines start from it, and a third from what one of them saved."""
    low, high = Region(0, 0x10000), Region(0x80000, PAGE)
    # inc byte [FIRST]; mov al, [FIRST]; out 0x11, al; hlt
    code = bytes.fromhex("fe 06 00 20 a0 00 20 e6 11 f4")
    path = tmp_path / "memory"

    def counted(memory: Any) -> int:
        with arch.Vm(memory) as vm:
            arch.configure_vcpu(vm.vcpus[0], RealMode(CODE))
            tells = vm.vcpus[0].run()
            assert isinstance(tells, IoOut)
            return tells.value

    with arch.GuestMemory([low, high]) as memory:
        memory.write(CODE, code)
        memory.write(high.end - 4, b"high")
        assert counted(memory) == 1
        memory.save(path)
    for _ in range(2):
        with arch.GuestMemory([low, high], file=path) as memory:
            assert counted(memory) == 2
            assert memory.read(high.end - 4, 4) == b"high"
    with arch.GuestMemory([low, high], file=path) as memory:
        counted(memory)
        memory.save(path)
        assert counted(memory) == 3
    with arch.GuestMemory([low, high], file=path) as memory:
        assert counted(memory) == 3
