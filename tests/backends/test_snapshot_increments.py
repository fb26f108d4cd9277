"""Increments: snapshots with what was written since another one, in memory and as files."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from snapshot_files import parts_of
from vmm_arch.__main__ import main
from vmm_arch.errors import SnapshotError
from vmm_arch.memory import Region
from vmm_arch.selftest.x86_64.harness import AnyBackend
from vmm_arch.snapshot import image
from vmm_arch.snapshot.snapshot import MachineSnapshot
from vmm_arch.x86_64.entry import RealMode
from vmm_arch.x86_64.exits import IoOut

# inc ax; mov [0x8000], ax; out 0x10, ax; jmp -9
COUNTS = bytes.fromhex("40 a3 00 80 e7 10 eb f8")
REGIONS = [Region(0, 0x10000), Region(0x10000, 0x4000), Region(0x20_0000, 0x8000)]
SEED = int(os.environ.get("SEED", 20262))


def count(vm: Any) -> int:
    exit = vm.vcpus[0].run()
    assert isinstance(exit, IoOut)
    return exit.value


@contextmanager
def counting(arch: AnyBackend, **options: Any) -> Iterator[Any]:
    options = {"track_dirty": True} | options
    with arch.GuestMemory(REGIONS) as memory, arch.Vm(memory, **options) as vm:
        memory.write(0x1000, COUNTS)
        arch.configure_vcpu(vm.vcpus[0], RealMode(0x1000))
        yield vm


def content(vm: Any) -> bytes:
    return b"".join(vm.memory.read(region.address, region.size) for region in REGIONS)


@pytest.fixture(autouse=True)
def _no_descriptor_is_left() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) <= before


def test_an_increment_has_what_guest_and_host_have_written_since(arch: AnyBackend) -> None:
    with counting(arch) as vm:
        vm.memory.write(0x20_0000, b"before")
        base = vm.take_snapshot()
        assert count(vm) == 1
        vm.memory.write(0xFFFF, b"hos")  # across two regions that touch
        with vm.memory.view(0x20_7000, 0x1000) as view:
            view[0] = 7
        part = vm.take_snapshot(base=base, devices={"a": 1})
        was = content(vm)
        assert part.memory.top.extents == [(0x8000, 0x9000), (0xF000, 0x11000), (0x1B000, 0x1C000)]
        assert part.base is base
    with base, part, part.fork() as vm:
        assert content(vm) == was
        assert vm.memory.read(0x20_0000, 6) == b"before"
        assert vm.save() == part.state
        assert count(vm) == 2


def test_zeros_that_were_written_cover_what_was_there(arch: AnyBackend) -> None:
    with counting(arch) as vm:
        vm.memory.write(0x5000, b"\1" * 0x2000)
        base = vm.take_snapshot()
        vm.memory.write(0x5000, bytes(0x1000))
        part = vm.take_snapshot(base=base)
    with base, part, part.fork() as vm:
        assert vm.memory.read(0x4FFF, 0x1002) == bytes(0x1001) + b"\1"


def test_what_dirty_pages_has_told_is_in_increments_too(arch: AnyBackend) -> None:
    with counting(arch) as vm:
        base = vm.take_snapshot()
        vm.dirty_pages()
        assert count(vm) == 1
        assert vm.dirty_pages() == [0x8000]
        with base, vm.take_snapshot(base=base) as part:
            assert part.memory.top.extents == [(0x8000, 0x9000)]
        assert count(vm) == 2
        assert vm.dirty_pages() == [0x8000]


@pytest.mark.parametrize("overlays", [256, 0], ids=["mapped", "merged"])
def test_a_chain_is_one_memory_whatever_is_closed(
    arch: AnyBackend, overlays: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image, "_OVERLAYS", overlays)
    chance = random.Random(SEED)
    with counting(arch) as vm, ExitStack() as stack:
        chain = [stack.enter_context(vm.take_snapshot())]
        contents = [content(vm)]
        for _ in range(20):
            for _ in range(chance.randrange(4)):
                region = chance.choice(REGIONS)
                address = region.address + chance.randrange(0, region.size - 0x40, 8)
                if not 0x1000 <= address < 0x1040:
                    vm.memory.write(address, chance.randbytes(0x40))
            vm.memory.write(0x1000, COUNTS)
            if chance.random() < 0.7:
                count(vm)
            chain.append(stack.enter_context(vm.take_snapshot(base=chain[-1])))
            contents.append(content(vm))
        vm.close()
        for snapshot in chain[:10]:
            snapshot.close()
        for index in chance.sample(range(10, 21), 6):
            with chain[index].fork() as forked:
                assert content(forked) == contents[index]
                assert forked.save() == chain[index].state


def test_a_fork_copies_nothing_of_the_base(arch: AnyBackend) -> None:
    with counting(arch) as vm:
        vm.memory.write(0x4000, b"\1" * 0x4000)
        base = vm.take_snapshot()
        vm.memory.write(0x6000, b"\2" * 0x1000)
        part = vm.take_snapshot(base=base)
    with base, part:
        files = [layer.descriptor for layer in part.memory._layers()]
        before = [os.fstat(file).st_blocks for file in files]
        for _ in range(2):
            with part.fork() as vm:
                assert count(vm) == 1
                assert vm.memory.read(0x20_0000, 0x8000) == bytes(0x8000)
                assert vm.memory.read(0x5FFF, 0x1002) == b"\1" + b"\2" * 0x1000 + b"\1"
                vm.memory.write(0x6000, b"\3" * 0x2000)
        # Only small holes may have been filled by being read, by the hypervisor for instance.
        after = [os.fstat(file).st_blocks for file in files]
        assert all(now <= was + 24 for now, was in zip(after, before, strict=True))
        assert len(part.memory._layers()) == 2
        whole = part.memory.whole
        assert len(part.memory._layers()) == 1
        assert (part.memory.descriptor, part.memory.offset) == (whole.descriptor, 0)
        assert os.pread(whole.descriptor, 0x1002, 0x5FFF) == b"\1" + b"\2" * 0x1000 + b"\1"
        with part.fork() as vm:
            assert vm.memory.read(0x5FFF, 0x1002) == b"\1" + b"\2" * 0x1000 + b"\1"


def test_a_forked_machine_takes_increments_on_what_it_was_forked_from(arch: AnyBackend) -> None:
    with counting(arch, track_dirty=False) as vm:
        base = vm.take_snapshot()
    with base:
        with base.fork(track_dirty=True) as vm:
            assert count(vm) == 1
            part = vm.take_snapshot(base=base)
            assert part.memory.top.extents == [(0x8000, 0x9000)]
            was = content(vm)
        with part, part.fork() as vm:
            assert content(vm) == was
            assert vm.track_dirty


def test_only_what_is_known_can_be_an_increment(arch: AnyBackend) -> None:
    with (
        counting(arch, track_dirty=False) as vm,
        vm.take_snapshot() as base,
        pytest.raises(SnapshotError, match="the machine was created without track_dirty"),
    ):
        vm.take_snapshot(base=base)
    with counting(arch) as vm, vm.take_snapshot() as first, vm.take_snapshot() as second:
        with pytest.raises(SnapshotError, match="base: not the snapshot that the machine was"):
            vm.take_snapshot(base=first)
        second.close()
        with pytest.raises(SnapshotError, match="the snapshot is closed"):
            vm.take_snapshot(base=second)
        with pytest.raises(SnapshotError) as caught:
            vm.take_snapshot(base=base, devices={"a": b""})  # closed, and another machine's
        assert len(caught.value.problems) == 3


def test_a_failure_leaves_nothing_and_forgets_nothing(
    arch: AnyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, at: int, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with counting(arch) as vm, vm.take_snapshot() as base:
        assert count(vm) == 1
        before = len(os.listdir("/proc/self/fd"))
        with monkeypatch.context() as patch:
            patch.setattr(image, "write_at", full)
            with pytest.raises(OSError, match="No space left"):
                vm.take_snapshot(base=base)
        assert len(os.listdir("/proc/self/fd")) == before
        part = vm.take_snapshot(base=base)
        vm.close()
        with part:
            with monkeypatch.context() as patch:
                patch.setattr(image, "write_at", full)
                with pytest.raises(OSError, match="No space left"):
                    assert part.memory.whole
            with part.fork() as forked:
                assert count(forked) == 2


@pytest.fixture
def chain(arch: AnyBackend, tmp_path: Path) -> list[Path]:
    """A snapshot, and two increments, the second one on the first, as files."""
    paths = [tmp_path / name for name in ("whole", "first", "second")]
    with counting(arch) as vm, ExitStack() as stack:
        vm.memory.write(0x20_0000, b"at the bottom")
        base: MachineSnapshot | None = None
        for path in paths:
            base = stack.enter_context(vm.take_snapshot(base=base))
            base.save(path)
            count(vm)
    return paths


def test_a_chain_of_files(arch: AnyBackend, chain: list[Path]) -> None:
    with arch.Snapshot.load(chain[0]) as whole:
        first = arch.Snapshot.load(chain[1], base=whole, verify=True)
    second = arch.Snapshot.load(chain[2], base=first)
    first.close()
    with second:
        assert second.base is first
        with second.fork() as vm:
            assert vm.memory.read(0x20_0000, 13) == b"at the bottom"
            assert count(vm) == 3
        again = chain[2].with_name("again")
        second.save(again)
        assert again.read_bytes() == chain[2].read_bytes()


def test_an_increments_file_takes_what_was_written(chain: list[Path]) -> None:
    assert parts_of(chain[2]).extents == [(0x8000, 0x9000)]
    assert chain[2].stat().st_size == chain[0].stat().st_size


def test_a_file_needs_its_own_base(arch: AnyBackend, chain: list[Path]) -> None:
    with arch.Snapshot.load(chain[0]) as whole:
        with pytest.raises(SnapshotError, match=f"give as base .* {whole.digest}"):
            arch.Snapshot.load(chain[1])
        with pytest.raises(SnapshotError, match=f"; this base has {whole.digest}"):
            arch.Snapshot.load(chain[2], base=whole)
        with pytest.raises(SnapshotError, match="is no increment; give no base"):
            arch.Snapshot.load(chain[0], base=whole)


def test_the_base_of_a_file_need_not_be_saved(arch: AnyBackend, tmp_path: Path) -> None:
    """What it would be called in its file is known without."""
    path = tmp_path / "part"
    with counting(arch) as vm, vm.take_snapshot() as base:
        count(vm)
        with vm.take_snapshot(base=base) as part:
            part.save(path)
        vm.close()
        with arch.Snapshot.load(path, base=base) as loaded, loaded.fork() as vm:
            assert count(vm) == 2


def test_memory_of_increments_is_compared_with_their_bases(
    chain: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    whole, first, second = map(str, chain)
    assert main(["state", whole, second]) == 2
    assert "is an increment of the snapshot with the digest" in capsys.readouterr().err
    assert main(["state", whole, second, "--base", first, "--base", whole]) == 1
    assert "memory: 1 page differs: [0x8000, 0x9000)\n" in capsys.readouterr().out
    assert main(["state", "--no-memory", whole, second]) == 1
    assert "memory" not in capsys.readouterr().out
    assert main(["state", second, second]) == 0
    capsys.readouterr()
    assert main(["state", second]) == 0
    assert "\nincrement of the snapshot with the digest " in capsys.readouterr().out
