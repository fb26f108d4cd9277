"""Pools of machines, which are reset when they are given back and replaced when they fail."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from test_forks import in_a_child
from vmm_arch.errors import ClosedError, ForkedError, HypervisorError
from vmm_arch.selftest.x86_64.harness import AnyBackend
from vmm_arch.snapshot.pool import MachinePool
from vmm_arch.snapshot.snapshot import MachineSnapshot
from vmm_arch.x86_64.entry import RealMode
from vmm_arch.x86_64.exits import IoIn, IoOut

LATE = 30
# in al, 0x10; add [0x8000], al; mov al, [0x8000]; out 0x11, al; jmp -12
ADDS = bytes.fromhex("e4 10 00 06 00 80 a0 00 80 e6 11 eb f3")
SPINS = b"\xeb\xfe"  # jmp $


def taken(arch: AnyBackend, code: bytes) -> Any:
    with arch.GuestMemory(1 << 20) as memory, arch.Vm(memory) as vm:
        memory.write(0x1000, code)
        arch.configure_vcpu(vm.vcpus[0], RealMode(0x1000))
        return vm.take_snapshot()


@pytest.fixture
def snapshot(arch: AnyBackend) -> Iterator[MachineSnapshot]:
    with taken(arch, ADDS) as snapshot:
        yield snapshot


def add(vm: Any, number: int) -> int:
    asks = vm.vcpus[0].run()
    assert isinstance(asks, IoIn)
    asks.complete(number)
    tells = vm.vcpus[0].run()
    assert isinstance(tells, IoOut)
    return tells.value


def test_everybody_gets_the_machine_of_the_snapshot(
    arch: AnyBackend, snapshot: MachineSnapshot
) -> None:
    with MachinePool(snapshot, 1) as pool:
        for number in range(1, 5):
            with pool.machine() as vm:
                assert add(vm, number) == number
                vm.memory.write(0x9000, b"secret")
                vm.vcpus[0].run()  # and leaves it with a question
            with pool.machine() as vm:
                assert vm.memory.read(0x9000, 6) == bytes(6)
        found = pool.statistics
        assert (found.made, found.acquired, found.resets, found.discarded) == (1, 8, 8, 0)
        assert (found.idle, found.in_use, found.waits) == (1, 0, 0)


def test_a_machine_whose_user_failed_is_replaced(
    arch: AnyBackend, snapshot: MachineSnapshot
) -> None:
    with MachinePool(snapshot, 1) as pool:
        with pytest.raises(KeyError), pool.machine() as failed:
            raise KeyError
        assert isinstance(pool.last_failure, KeyError)
        with pytest.raises(ClosedError):
            failed.save()
        with pool.machine() as vm:
            assert add(vm, 3) == 3
            vm.close()  # so that it cannot be reset
        with pool.machine() as vm:
            assert add(vm, 4) == 4
        found = pool.statistics
        assert (found.made, found.discarded, found.in_use) == (3, 2, 0)


def test_nobody_gets_more_than_there_are(arch: AnyBackend, snapshot: MachineSnapshot) -> None:
    with MachinePool(snapshot, 1, ready=0) as pool:
        assert pool.statistics.made == 0
        vm = pool.acquire()
        with pytest.raises(TimeoutError, match="all 1 machines are in use; release some"):
            pool.acquire(timeout=0.05)
        got: list[Any] = []
        waiting = threading.Thread(target=lambda: got.append(pool.acquire(LATE)))
        waiting.start()
        pool.release(vm)
        waiting.join(LATE)
        assert got == [vm]
        pool.release(vm)
        with pytest.raises(ValueError, match="not a machine that this pool has given"):
            pool.release(vm)
        assert pool.statistics.waits >= 1
    assert "closed" in repr(pool)


def test_threads_share_a_pool(arch: AnyBackend, snapshot: MachineSnapshot) -> None:
    size = 3 if arch.MACHINES_PER_PROCESS is None else 1

    def ask(number: int) -> int:
        with pool.machine(LATE) as vm:
            return add(vm, number)

    with MachinePool(snapshot, size, ready=0) as pool, ThreadPoolExecutor(6) as threads:
        assert list(threads.map(ask, range(100))) == list(range(100))
        found = pool.statistics
        assert found.made <= size
        assert (found.acquired, found.resets, found.in_use) == (100, 100, 0)


def test_closing_stops_everybody(arch: AnyBackend) -> None:
    def use() -> None:
        try:
            with pool.machine() as vm:
                running.set()
                vm.vcpus[0].run()
        except ClosedError as error:
            ended.append(error)

    ended: list[BaseException] = []
    running = threading.Event()
    before = os.listdir("/proc/self/fd")
    with taken(arch, SPINS) as snapshot, MachinePool(snapshot, 1) as pool:
        threads = [threading.Thread(target=use) for _ in range(2)]
        for thread in threads:
            thread.start()
        assert running.wait(LATE)
        time.sleep(0.1)
        pool.close()
        for thread in threads:
            thread.join(LATE)
        assert len(ended) == 2
        with pytest.raises(ClosedError, match="the pool is closed"):
            pool.acquire()
        pool.close()
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_machine_that_cannot_be_made(arch: AnyBackend, snapshot: MachineSnapshot) -> None:
    def refuse(vm: Any) -> None:
        if refusing:
            raise HypervisorError("prepare", "EPERM", "as if")

    before = os.listdir("/proc/self/fd")
    refusing = True
    with pytest.raises(HypervisorError):
        MachinePool(snapshot, 2, prepare=refuse)
    with MachinePool(snapshot, 1, ready=0, prepare=refuse) as pool:
        for _ in range(2):
            with pytest.raises(HypervisorError):
                pool.acquire(timeout=0)
        refusing = False
        with pool.machine() as vm:
            assert add(vm, 1) == 1
    assert len(os.listdir("/proc/self/fd")) == len(before)
    for size, ready in ((0, 0), (2, 3), (1, -1)):
        with pytest.raises(ValueError, match="give a size of 1 or more"):
            MachinePool(snapshot, size, ready=ready)


def test_a_forked_child_makes_its_own(arch: AnyBackend, snapshot: MachineSnapshot) -> None:
    with MachinePool(snapshot, 1) as pool:

        def use() -> None:
            with pytest.raises(ForkedError, match="make another one here"):
                pool.acquire()
            pool.close()
            with MachinePool(snapshot, 1) as own, own.machine() as vm:
                assert add(vm, 1) == 1

        if arch.MACHINES_PER_PROCESS is None:
            assert in_a_child(use) == ""
        with pool.machine() as vm:
            assert add(vm, 2) == 2
