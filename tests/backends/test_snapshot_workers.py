"""Snapshots in other processes: pickled, forked, and given to executors."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from test_forks import in_a_child
from vmm_arch import whp
from vmm_arch.errors import ClosedError, SnapshotError
from vmm_arch.selftest.x86_64.harness import AnyBackend
from vmm_arch.snapshot import pickled
from vmm_arch.snapshot.snapshot import MachineSnapshot
from vmm_arch.x86_64.entry import RealMode
from vmm_arch.x86_64.exits import IoIn, IoOut
from whp.build import PLATFORM, libraries

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="tests/whp has those of Windows")

# in al, 0x10; add [0x8000], al; mov al, [0x8000]; out 0x11, al; jmp -12
ADDS = bytes.fromhex("e4 10 00 06 00 80 a0 00 80 e6 11 eb f3")


@pytest.fixture
def snapshot(arch: AnyBackend) -> Iterator[MachineSnapshot]:
    with arch.GuestMemory(1 << 20) as memory, arch.Vm(memory, track_dirty=True) as vm:
        memory.write(0x1000, ADDS)
        memory.write(0x8000, b"\7")
        arch.configure_vcpu(vm.vcpus[0], RealMode(0x1000))
        taken = vm.take_snapshot(devices={"serial": [1]})
    with taken:
        yield taken


def add(snapshot: MachineSnapshot, number: int) -> tuple[int, int]:
    """What the guest says if it is given a number, and in which process."""
    with snapshot.fork() as vm:
        asks = vm.vcpus[0].run()
        assert isinstance(asks, IoIn)
        asks.complete(number)
        tells = vm.vcpus[0].run()
        assert isinstance(tells, IoOut)
        return tells.value, os.getpid()


def begin(backend: str, folder: str) -> None:
    """In a process that was not forked: the stand-in for Windows' platform."""
    if backend.startswith("whp"):
        whp.load(Path(folder) / PLATFORM)
    import_module(f"vmm_arch.{backend}").install_kick_signal()


def workers(arch: Any, way: str) -> Executor:
    if way == "threads":
        return ThreadPoolExecutor(2)
    backend = arch.__name__.rpartition(".")[2]
    arguments = (backend, str(libraries()))
    context = multiprocessing.get_context(way)
    return ProcessPoolExecutor(2, context, initializer=begin, initargs=arguments)


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("way", ["spawn", "fork", "forkserver", "threads"])
def test_workers_make_machines_of_it(
    arch: AnyBackend, snapshot: MachineSnapshot, tmp_path: Path, way: str, saved: bool
) -> None:
    if arch.MACHINES_PER_PROCESS == 1 and way in ("fork", "threads"):
        return  # its processes must be new, and have one machine at a time
    if saved:
        snapshot.save(tmp_path / "snapshot")
    with workers(arch, way) as pool:
        jobs = [pool.submit(add, snapshot, number) for number in range(8)]
        done = [job.result(60) for job in jobs]
    assert [answer for answer, _ in done] == [7 + number for number in range(8)]
    assert (os.getpid() in {process for _, process in done}) == (way == "threads")


def test_a_forked_child_has_it(arch: AnyBackend, snapshot: MachineSnapshot) -> None:
    if arch.MACHINES_PER_PROCESS == 1:
        return

    def use() -> None:
        assert add(snapshot, 5)[0] == 12

    with snapshot.fork():
        assert in_a_child(use) == ""
        with snapshot.memory._lock:  # as if another thread held it, which is not in the child
            import threading

            said: list[str] = []
            other = threading.Thread(target=lambda: said.append(in_a_child(use)))
            other.start()
            other.join()
        assert said == [""]


def test_what_is_pickled_without_a_file(arch: AnyBackend, snapshot: MachineSnapshot) -> None:
    copy = pickle.loads(pickle.dumps(snapshot))
    assert type(copy) is type(snapshot)
    assert copy.digest == snapshot.digest
    assert copy.devices == {"serial": [1]}
    assert len(pickle.dumps(snapshot)) < 0x10000 < snapshot.configuration.size
    snapshot.close()
    with copy:
        assert add(copy, 1)[0] == 8
    with pytest.raises(ClosedError):
        pickle.dumps(snapshot)


def test_its_file_is_found_from_elsewhere(
    arch: AnyBackend, snapshot: MachineSnapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    snapshot.save("snapshot")
    monkeypatch.chdir("/")
    told = pickle.dumps(snapshot)
    assert len(told) < 1000
    with pickle.loads(told) as copy:
        assert add(copy, 2)[0] == 9
        assert pickle.dumps(copy) == told


def test_a_file_that_is_gone_or_another(
    arch: AnyBackend, snapshot: MachineSnapshot, tmp_path: Path
) -> None:
    path = tmp_path / "snapshot"
    snapshot.save(path)
    told = pickle.dumps(snapshot)
    with pickle.loads(told) as copy, copy.fork() as vm:
        vm.memory.write(0, b"other")
        with vm.take_snapshot() as other:
            other.save(path)
    with pytest.raises(SnapshotError, match="not the snapshot any more that was pickled"):
        pickle.loads(told)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="snapshot"):
        pickle.loads(told)
    with pickle.loads(pickle.dumps(snapshot)) as copy:  # as if it had never been saved
        assert add(copy, 3)[0] == 10


def test_an_increment_brings_its_base(arch: AnyBackend, snapshot: MachineSnapshot) -> None:
    with snapshot.fork() as vm:
        vm.memory.write(0x8000, b"\x20")
        increment = vm.take_snapshot(base=snapshot)
    with increment, pickle.loads(pickle.dumps(increment)) as copy:
        assert copy.base.digest == snapshot.digest
        assert add(copy, 1)[0] == 0x21


def test_a_large_one_wants_a_file(
    arch: AnyBackend, snapshot: MachineSnapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pickled, "LARGEST", 0x1000)
    with pytest.raises(SnapshotError, match=r"pickle: 0x.000 bytes .* save\(\) it"):
        pickle.dumps(snapshot)
    snapshot.save(tmp_path / "snapshot")
    pickle.loads(pickle.dumps(snapshot)).close()
