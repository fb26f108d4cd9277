"""Machines whose memory is the hypervisor's own, in a guest_memfd."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from typing import Any

import pytest
from backends import backend_module
from requirements import require
from vmm_arch import kvm
from vmm_arch import kvm_x86_64 as arch
from vmm_arch.abi import kvm_x86_64 as abi

# inc byte [0x8000]; mov al, [0x8000]; out 0x10, al; jmp -11
COUNTS = bytes.fromhex("fe 06 00 80 a0 00 80 e6 10 eb f5")
REGIONS = [arch.Region(0, 0x10000), arch.Region(0x10_0000, 4 << 20)]


@pytest.fixture(autouse=True)
def _offered() -> None:
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")
    device = kvm.open_device()
    try:
        flags = kvm.ioctl(device, abi.KVM_CHECK_EXTENSION, abi.KVM_CAP_GUEST_MEMFD_FLAGS)
    finally:
        os.close(device)
    require(flags & 3 == 3, "this host's KVM has no guest_memfd that can be mapped")


@pytest.fixture
def memory() -> Iterator[arch.GuestMemory]:
    with arch.GuestMemory(REGIONS, guest_memfd=True) as memory:
        memory.write(0x1000, COUNTS)
        memory.write(0x8000, b"\7")
        memory.write(0x10_0FFF, b"across")
        yield memory


def counts(vm: Any, times: int) -> list[int]:
    found = []
    for _ in range(times):
        tells = vm.vcpus[0].run()
        assert isinstance(tells, arch.IoOut)
        found.append(tells.value)
    return found


def mapped_files(memory: arch.GuestMemory) -> int:
    host = memory.host_address(memory.regions[0])
    with open("/proc/self/maps") as maps:
        lines = [line for line in maps if "gmem" in line or "guest_memfd" in line]
    return len(lines) if any(line.startswith(f"{host:x}-") for line in lines) else 0


def test_a_guest_runs_in_it_and_the_host_sees_the_same(memory: arch.GuestMemory) -> None:
    gc.collect()  # files of what other tests have left must not be closed in between
    before = len(os.listdir("/proc/self/fd"))
    for first in (8, 10):  # a second machine goes on with the memory of the first
        with arch.Vm(memory) as vm:
            assert mapped_files(memory) >= len(REGIONS)
            arch.configure_vcpu(vm.vcpus[0], arch.RealMode(0x1000))
            assert counts(vm, 2) == [first, first + 1]
            assert memory.read(0x8000, 1) == bytes([first + 1])
            memory.write(0x8000, b"\x20")
            assert counts(vm, 1) == [0x21]
            memory.write(0x8000, bytes([first + 1]))
            assert memory.read(0x10_0FFF, 6) == b"across"
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_snapshot_of_it_goes_on_anywhere(memory: arch.GuestMemory) -> None:
    with arch.Vm(memory) as vm:
        arch.configure_vcpu(vm.vcpus[0], arch.RealMode(0x1000))
        assert counts(vm, 1) == [8]
        snapshot = vm.take_snapshot()
    with snapshot, snapshot.fork() as vm:
        assert counts(vm, 2) == [9, 10]


def test_what_it_cannot_be(memory: arch.GuestMemory) -> None:
    with pytest.raises(ValueError, match="without track_dirty"):
        arch.Vm(memory, track_dirty=True)
    with arch.Vm(memory), pytest.raises(ValueError, match="memory of one machine"):
        arch.Vm(memory)
    with pytest.raises(ValueError, match="leave out file"):
        arch.GuestMemory(0x1000, guest_memfd=True, huge_pages="transparent")
    with pytest.raises(ValueError, match="read-only"):
        arch.GuestMemory([arch.Region(0, 0x1000, read_only=True)], guest_memfd=True)
    with pytest.raises(arch.HypervisorUnavailableError, match=r"guest_memfd=True.*ENOTSUP"):
        backend_module("whp_x86_64").Vm(memory)


def test_a_host_that_has_none_is_named(
    memory: arch.GuestMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = kvm.ioctl

    def without(fd: int, request: int, *argument: Any) -> int:
        if request == abi.KVM_CHECK_EXTENSION and argument == (abi.KVM_CAP_GUEST_MEMFD_FLAGS,):
            return 0
        answer: int = real(fd, request, *argument)
        return answer

    monkeypatch.setattr(kvm, "ioctl", without)
    with pytest.raises(arch.HypervisorUnavailableError, match="KVM_CAP_GUEST_MEMFD_FLAGS"):
        arch.Vm(memory)
    assert memory.read(0x8000, 1) == b"\7"
