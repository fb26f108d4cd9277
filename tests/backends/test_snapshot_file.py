"""Files of snapshots: what they keep, and that none of them does harm, whoever wrote it."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from snapshot_files import BEFORE_HEADER, Parts, deep, mutated, parts_of
from vmm_arch.errors import ClosedError, HypervisorError, SnapshotError, StateError
from vmm_arch.memory import Region
from vmm_arch.selftest.x86_64.harness import AnyBackend
from vmm_arch.snapshot import file, image
from vmm_arch.snapshot.positions import read_at
from vmm_arch.snapshot.snapshot import MachineSnapshot
from vmm_arch.x86_64.entry import RealMode
from vmm_arch.x86_64.exits import IoOut

# inc ax; mov [0x8000], ax; out 0x10, ax; jmp -9
COUNTS = bytes.fromhex("40 a3 00 80 e7 10 eb f8")
REGIONS = [Region(0, 0xC000), Region(0x10_0000, 0x1000, read_only=True)]
SEED = int(os.environ.get("SEED", 20261))


REMEDY = "give a file that a snapshot's save() or vmm-arch run --save has written"


def count(vm: Any) -> int:
    exit = vm.vcpus[0].run()
    assert isinstance(exit, IoOut)
    return exit.value


def take(arch: AnyBackend, **options: Any) -> MachineSnapshot:
    with arch.GuestMemory(REGIONS) as memory, arch.Vm(memory, **options) as vm:
        memory.write(0x1000, COUNTS)
        memory.write(0x10_0FFF, b"\x5a")
        arch.configure_vcpu(vm.vcpus[0], RealMode(0x1000))
        assert count(vm) == 1
        devices = {"serial": {"text": "µ", "bytes": [1, 2.5, None, True]}}
        taken: MachineSnapshot = vm.take_snapshot(devices=devices)
        return taken


@pytest.fixture
def saved(arch: AnyBackend, tmp_path: Path) -> Path:
    path = tmp_path / "snapshot"
    with take(arch) as snapshot:
        snapshot.save(path)
    return path


@pytest.fixture
def parts(saved: Path) -> Parts:
    return parts_of(saved)


@pytest.fixture(autouse=True)
def _no_descriptor_is_left() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) <= before


def problems_of(arch: AnyBackend, path: Path, **options: Any) -> tuple[str, ...]:
    """What is wrong with a file; which is an error that names it, and nothing is left behind."""
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(SnapshotError) as caught:
        arch.Snapshot.load(path, **options)
    assert str(caught.value).startswith(str(path))
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(caught.value.problems) <= 101
    assert all(len(p) < 2000 and p.isprintable() for p in caught.value.problems)
    return caught.value.problems


def test_a_machine_goes_on_from_a_file(arch: AnyBackend, tmp_path: Path) -> None:
    path = tmp_path / "snapshot"
    with take(arch) as taken:
        taken.save(path)
        for _ in range(2):
            with arch.Snapshot.load(path, verify=True) as snapshot:
                assert snapshot.state == taken.state
                assert snapshot.configuration == taken.configuration
                assert snapshot.devices == taken.devices
                assert snapshot.digest == taken.digest
                with snapshot.fork() as vm:
                    assert vm.memory.read(0x10_0FFF, 1) == b"\x5a"
                    assert [count(vm), count(vm)] == [2, 3]
                again = tmp_path / "again"
                snapshot.save(again)
                assert again.read_bytes() == path.read_bytes()


def test_several_vcpus_and_an_irqchip(arch: AnyBackend, tmp_path: Path) -> None:
    with take(arch, vcpus=2, irqchip=True) as taken:
        taken.save(tmp_path / "snapshot")
    with arch.Snapshot.load(tmp_path / "snapshot") as snapshot, snapshot.fork() as vm:
        assert (len(vm.vcpus), vm.irqchip) == (2, True)
        assert count(vm) == 2


def test_a_file_is_as_large_as_memory_and_costs_what_is_in_it(
    arch: AnyBackend, tmp_path: Path
) -> None:
    path = tmp_path / "snapshot"
    with arch.GuestMemory(256 << 20) as memory, arch.Vm(memory) as vm:
        memory.write(100 << 20, b"something")
        with vm.take_snapshot() as snapshot:
            snapshot.save(path)
    assert path.stat().st_size > 256 << 20
    assert path.stat().st_blocks * 512 < 1 << 20
    with arch.Snapshot.load(path) as snapshot, snapshot.fork() as vm:
        assert vm.memory.read(100 << 20, 9) == b"something"


def test_memory_is_not_read_to_load_it(
    arch: AnyBackend, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = saved.stat().st_size - 0xD000
    read: list[int] = []

    def watched(descriptor: int, at: int, size: int) -> bytes:
        read.append(at + size)
        return read_at(descriptor, at, size)

    monkeypatch.setattr(file, "read_at", watched)
    monkeypatch.setattr(image, "read_at", watched)
    with arch.Snapshot.load(saved) as snapshot, snapshot.fork() as vm:
        assert count(vm) == 2
    assert max(read) <= begin
    arch.Snapshot.load(saved, verify=True).close()
    assert max(read) == begin + 0xD000


def test_features_that_follow_from_vcpus_are_not_asked_of_a_host(
    arch: AnyBackend, parts: Parts, tmp_path: Path
) -> None:
    data = parts.data
    for entries in (data["host"], data["machine"]["cpuid"]):
        leaf = entries["0x1"]
        leaf[3] = hex(int(leaf[3], 16) | 1 << 28)  # more than one thread
        leaf[2] = hex(int(leaf[2], 16) | 1 << 27)  # CR4.OSXSAVE
    path = parts.with_data(data).write(tmp_path / "other")
    with arch.Snapshot.load(path) as snapshot:
        host = arch.supported_cpuid()
        assert not snapshot._cpu.lacking(snapshot.configuration.requests, snapshot._host, host)


def test_what_cannot_be_saved_leaves_the_old_file(arch: AnyBackend, saved: Path) -> None:
    old = saved.read_bytes()
    with take(arch) as snapshot:
        pass
    with pytest.raises(ClosedError):
        snapshot.save(saved)
    with take(arch) as snapshot:
        snapshot.memory.top.extents = [(0, 0xC000), (0xD000, 0x10_0000)]  # beyond the file
        with pytest.raises(OSError, match="cut short"):
            snapshot.save(saved)
        with pytest.raises(FileNotFoundError):
            snapshot.save(saved.parent / "missing" / "snapshot")
    assert saved.read_bytes() == old
    assert [path.name for path in saved.parent.iterdir()] == ["snapshot"]


@pytest.mark.parametrize(
    ("devices", "problem"),
    [
        ({"a": b""}, "devices['a']: JSON has no bytes"),
        ({"a": [(1,)]}, "devices['a'][0]: JSON has no tuple"),
        ({1: 2}, "devices: the key 1 is not a str"),
        ({"a": float("nan")}, "devices['a']: nan is no number that JSON has"),
        ({"a": 1 << 64}, "devices['a']: an integer of more than 64 bits; write it as text"),
        ({"a": deep(2000)}, "more than 32 lists and dictionaries in each other"),
    ],
)
def test_devices_are_what_json_has(arch: AnyBackend, devices: Any, problem: str) -> None:
    with arch.GuestMemory(0x1000) as memory, arch.Vm(memory) as vm:
        with pytest.raises(SnapshotError) as caught:
            vm.take_snapshot(devices=devices)
        assert problem in str(caught.value)


def test_a_snapshot_does_not_change_with_its_callers_devices(arch: AnyBackend) -> None:
    mine: dict[str, Any] = {"a": []}
    with (
        arch.GuestMemory(0x1000) as memory,
        arch.Vm(memory) as vm,
        vm.take_snapshot(devices=mine) as snapshot,
    ):
        mine["a"].append(1)
        assert snapshot.devices == {"a": []}


def test_what_is_no_file_is_refused(arch: AnyBackend, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert problems_of(arch, tmp_path / "pipe") == ("is not a regular file",)
    assert problems_of(arch, tmp_path) == ("is not a regular file",)
    (tmp_path / "empty").touch()
    assert problems_of(arch, tmp_path / "empty") == (f"is empty; {REMEDY}",)
    (tmp_path / "text").write_text("#!/bin/sh\n" * 100)
    assert problems_of(arch, tmp_path / "text") == (f"is not a snapshot; {REMEDY}",)
    with pytest.raises(FileNotFoundError):
        arch.Snapshot.load(tmp_path / "missing")


def test_a_file_that_is_cut_anywhere_is_refused(arch: AnyBackend, saved: Path) -> None:
    begin = saved.stat().st_size - 0xD000
    # Each place in the header, of which the beginning and the end are special; some in memory.
    points = {*range(BEFORE_HEADER + 300), *range(0, begin, 13), *range(begin - 300, begin + 10)}
    for length in sorted({*points, *range(begin, begin + 0xD000, 0x333)}, reverse=True):
        os.truncate(saved, length)
        with pytest.raises(SnapshotError, match=r"cut short|is empty|is not a snapshot"):
            arch.Snapshot.load(saved)
    assert problems_of(arch, saved) == (f"is empty; {REMEDY}",)


def test_a_file_that_goes_on_is_refused(arch: AnyBackend, saved: Path) -> None:
    with open(saved, "ab") as longer:
        longer.write(b"\0")
    [problem] = problems_of(arch, saved)
    assert problem.startswith("is longer than it says")


def test_no_bit_can_flip_unseen(arch: AnyBackend, saved: Path) -> None:
    chance = random.Random(SEED)
    text = bytearray(saved.read_bytes())
    begin = len(text) - 0xD000
    fixed = [8 * byte + chance.randrange(8) for byte in range(BEFORE_HEADER)]
    for bit in (*fixed, *(chance.randrange(8 * begin) for _ in range(2000))):
        flipped(saved, bit)
        with pytest.raises(SnapshotError):
            arch.Snapshot.load(saved)
        flipped(saved, bit)
    assert saved.read_bytes() == text
    for bit in (chance.randrange(8 * begin, 8 * len(text)) for _ in range(100)):
        flipped(saved, bit)
        [problem] = problems_of(arch, saved, verify=True)
        assert problem in (
            "memory does not match its checksum: it was damaged, or changed",
            "there are bytes where the file says that memory has none",
        )
        arch.Snapshot.load(saved).close()  # memory is not read
        flipped(saved, bit)
    arch.Snapshot.load(saved, verify=True).close()


def flipped(path: Path, bit: int) -> None:
    with open(path, "r+b") as opened:
        opened.seek(bit // 8)
        byte = opened.read(1)[0]
        opened.seek(bit // 8)
        opened.write(bytes([byte ^ 1 << bit % 8]))


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        ({"magic": b"\x89vmm-arch snap\n\n "}, [f"is not a snapshot; {REMEDY}"]),
        ({"version": 2}, ["this vmm-arch knows 1; a newer vmm-arch reads it"]),
        ({"version": 0}, ["has version 0 of the format"]),
        ({"header_size": 0xFFFF_FFFF}, ["header takes 4294967295 bytes; 67108864 are the most"]),
        ({"count": 1 << 60}, ["table of extents takes 18446744073709551616 bytes"]),
        (
            {"count": 1 << 63, "begin": 1 << 63, "size": 1 << 63},
            ["table of", "memory begins", "is cut"],
        ),
        ({"count": 7}, ["does not match its checksum"]),
        ({"begin": 0}, ["says that memory begins at byte 0", "longer than it says"]),
        ({"begin": (1 << 64) - 0x10000}, ["says that memory begins at", "is cut short"]),
        ({"size": 0}, ["memory has 0 bytes, which are no whole pages", "longer"]),
        ({"size": 0xCFFF}, ["memory has 53247 bytes, which are no whole pages", "longer"]),
        ({"size": 1 << 63}, ["is cut short"]),
        ({"extents": [(0, 0x1000), (0, 0x1000)]}, ["[0x0, 0x1000) overlaps the one before"]),
        ({"extents": [(0, 0x2000), (0x1000, 0x3000)]}, ["overlaps"]),
        ({"extents": [(0x2000, 0x3000), (0, 0x1000)]}, ["overlaps"]),
        ({"extents": [(0, 0x1000), (0x1000, 0x2000)]}, ["or touches it"]),
        ({"extents": [(0x1000, 0x1000)]}, ["is not made of whole pages"]),
        ({"extents": [(0x1000, 0)]}, ["is not made of whole pages"]),
        ({"extents": [(1, 0x1001)]}, ["is not made of whole pages"]),
        ({"extents": [(0xC000, 0xE000)]}, ["reaches beyond the 0xd000 bytes of memory"]),
        ({"extents": [(0, 1 << 63)]}, ["reaches beyond"]),
        ({"extents": [(3, 1)] * 30}, ["not made of whole pages"] * 10 + ["more extents are wrong"]),
        ({"header": b""}, ["not JSON"]),
        ({"header": b"[]"}, ["the header is not a JSON object"]),
        ({"header": b'{"a":1,"a":2}'}, ["not JSON: duplicate key 'a'"]),
        ({"header": b'{"a":NaN}'}, ["not JSON: NaN is no number"]),
        ({"header": b'{"a":"\xff"}'}, ["not JSON: 'utf-8' codec"]),
        ({"header": b'{"a":' + b"9" * 5000 + b"}"}, ["not JSON: Exceeds the limit"]),
        ({"header": b'{"a":' + b"[" * 100 + b"]" * 100 + b"}"}, ["more than 64 lists and objects"]),
        ({"header": b"[" * 200_000}, ["not JSON: maximum recursion depth"]),
        ({"header": b"{}"}, ["is of None, not of "]),
    ],
    ids=lambda given: ", ".join(given)[:40] if isinstance(given, dict) else "",
)
def test_what_a_file_says_of_itself_is_not_believed(
    arch: AnyBackend, parts: Parts, tmp_path: Path, changes: Any, problems: list[str]
) -> None:
    path = replace(parts, **changes).write(tmp_path / "wrong")
    found = iter(problems_of(arch, path))
    for part in problems:
        assert any(part in problem for problem in found), f"{part}, in this order"


def test_everything_wrong_is_said_at_once(arch: AnyBackend, parts: Parts, tmp_path: Path) -> None:
    data = parts.data
    data["extra"] = 1
    data["base"] = "xyz"
    data["machine"]["vcpus"] = "2"
    data["machine"]["regions"][0]["size"] = "0x123"
    del data["machine"]["irqchip"]
    data["machine"]["cpuid"]["0x1"] = ["0x1", "0x2"]
    data["state"]["vcpus"][0]["sinks"]["regs" if "regs" in str(data) else "registers"] = 3
    data["host"]["nonsense"] = ["0x0"] * 4
    data["devices"] = []
    text = "\n".join(problems_of(arch, parts.with_data(data).write(tmp_path / "wrong")))
    for part in (
        "the header: 'extra' is unknown",
        "base: not 64 hexadecimal digits",
        "machine: vcpus is '2'",
        "machine: irqchip is missing",
        "machine: region 0: region of 0x123 bytes at 0x0 ends within a page",
        "machine: cpuid: '0x1' is not a leaf with four 32-bit values",
        "host: 'nonsense' is not a leaf",
        "the header: devices is a list",
        "state: vCPU 0: ",
    ):
        assert part in text


def test_many_problems_are_not_all_kept(arch: AnyBackend, parts: Parts, tmp_path: Path) -> None:
    data = parts.data
    data["machine"] |= {f"\x1b{'x' * 1000}{n}": n for n in range(5000)}
    found = problems_of(arch, parts.with_data(data).write(tmp_path / "wrong"))
    assert found[-1] == "and 4900 more"


def test_the_snapshot_of_another_backend_is_refused(
    arch: AnyBackend, parts: Parts, tmp_path: Path
) -> None:
    data = parts.data
    for other in ("kvm_aarch64", "__import__('os')", None, 7):
        data["backend"] = other
        [problem, *_] = problems_of(arch, parts.with_data(data).write(tmp_path / "wrong"))
        assert f"is of {other!r}, not of " in problem


def test_memory_and_regions_agree(arch: AnyBackend, parts: Parts, tmp_path: Path) -> None:
    data = parts.data
    data["machine"]["regions"][0]["size"] = "0xb000"
    [problem] = problems_of(arch, parts.with_data(data).write(tmp_path / "wrong"))
    assert problem == "has 0xd000 bytes of memory, and regions of 0xc000"
    data["machine"]["regions"][0] = {"address": "0x100000", "size": "0xc000", "read_only": False}
    [problem] = problems_of(arch, parts.with_data(data).write(tmp_path / "wrong"))
    assert "regions [0x100000, 0x10c000) and [0x100000, 0x101000) read-only overlap" in problem


def test_vcpus_and_states_agree(arch: AnyBackend, parts: Parts, tmp_path: Path) -> None:
    data = parts.data
    data["machine"]["vcpus"] = 1 << 40
    [problem] = problems_of(arch, parts.with_data(data).write(tmp_path / "wrong"))
    assert problem == f"machine: {1 << 40} vCPUs, and the state of 1"


def test_what_only_the_former_host_had_is_named(
    arch: AnyBackend, parts: Parts, tmp_path: Path
) -> None:
    data = parts.data
    for entries in (data["host"], data["machine"]["cpuid"]):
        leaf = entries.setdefault("0x7:0x0", ["0x0"] * 4)
        leaf[1] = hex(int(leaf[1], 16) | 1 << 31 | 1 << 2)  # avx512vl, and SGX
    host = arch.supported_cpuid()
    has = next((e.ebx for e in host if (e.function, e.index) == (7, 0)), 0)
    lacking = [name for name, bit in (("avx512vl", 31), ("sgx", 2)) if not has >> bit & 1]
    assert lacking, "this host has them all"
    path = parts.with_data(data).write(tmp_path / "other")
    with arch.Snapshot.load(path) as snapshot, pytest.raises(StateError) as caught:
        snapshot.fork()
    for name in lacking:
        assert f"{name}: this host's processor does not have it (CPUID 0x7 EBX bit" in str(
            caught.value
        )
    assert "taken on " in str(caught.value)


def test_mutants_with_right_checksums_load_or_are_refused(
    arch: AnyBackend, parts: Parts, tmp_path: Path
) -> None:
    """And one that loads makes a machine, or is refused by name."""
    chance = random.Random(SEED)
    loaded = 0
    for _ in range(int(os.environ.get("MUTANTS", 200))):
        data = mutated(parts.data, chance)
        path = parts.with_data(data).write(tmp_path / "mutant")
        try:
            snapshot = arch.Snapshot.load(path)
        except SnapshotError as error:
            assert error.problems
            assert len(error.problems) <= 101
            assert "".join(error.problems).isprintable()
            continue
        loaded += 1
        with snapshot:
            assert isinstance(repr(snapshot), str)
            try:
                vm = snapshot.fork()
            except (StateError, HypervisorError):
                continue
            vm.close()
    assert loaded
    with arch.Snapshot.load(parts.write(tmp_path / "mutant")) as snapshot, snapshot.fork() as vm:
        assert count(vm) == 2


def test_a_huge_claim_allocates_nothing(arch: AnyBackend, parts: Parts, tmp_path: Path) -> None:
    """Also where the file is that long, which costs whoever made it nothing."""
    path = replace(parts, header_size=(1 << 32) - 1).write(tmp_path / "wrong")
    os.truncate(path, 1 << 40)
    before = sys.getallocatedblocks()
    assert "67108864 are the most" in problems_of(arch, path)[0]
    assert sys.getallocatedblocks() < before + 10_000
