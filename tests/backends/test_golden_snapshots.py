"""Files of snapshots that were written some time ago: they stay readable.

There are two for each backend and version of the format, a snapshot and an increment of it. Those of
the present version are made by ``pytest tests/backends/test_golden_snapshots.py --update``; what was
in a release is never made again, and stays when the version changes.
"""

from __future__ import annotations

import lzma
import re
from pathlib import Path
from typing import Any

import pytest
from backends import BACKENDS, backend_module
from snapshot_files import parts_of
from vmm_arch.__main__ import main
from vmm_arch.errors import StateError
from vmm_arch.memory import Region
from vmm_arch.snapshot.file import VERSION
from vmm_arch.x86_64.entry import RealMode
from vmm_arch.x86_64.exits import IoOut

FOLDER = Path(__file__).parent / "golden"
# inc ax; mov [0x2000], ax; out 0x10, ax; jmp -9
COUNTS = bytes.fromhex("40 a3 00 20 e7 10 eb f8")
REGIONS = [Region(0, 0x8000), Region(0x10_0000, 0x1000, read_only=True)]


def count(vm: Any) -> int:
    exit = vm.vcpus[0].run()
    assert isinstance(exit, IoOut)
    return exit.value


def files(backend: str, version: int) -> tuple[Path, Path]:
    names = (f"{backend}-{version}.snapshot.xz", f"{backend}-{version}.increment.xz")
    return FOLDER / names[0], FOLDER / names[1]


def write(arch: Any, paths: tuple[Path, Path], scratch: Path) -> None:
    """Write both files of a machine."""
    FOLDER.mkdir(exist_ok=True)
    options = {"irqchip": True, "track_dirty": True}
    with arch.GuestMemory(REGIONS) as memory, arch.Vm(memory, **options) as vm:
        memory.write(0x1000, COUNTS)
        memory.write(0x10_0000, b"firmware")
        arch.configure_vcpu(vm.vcpus[0], RealMode(0x1000))
        assert count(vm) == 1
        with vm.take_snapshot(devices={"serial": {"ier": 1, "input": "µ"}}) as whole:
            assert count(vm) == 2
            with vm.take_snapshot(base=whole, devices={"serial": None}) as part:
                for snapshot, path in zip((whole, part), paths, strict=True):
                    snapshot.save(scratch / "saved")
                    path.write_bytes(lzma.compress((scratch / "saved").read_bytes()))


def unpacked(path: Path, scratch: Path) -> Path:
    target = scratch / path.stem
    target.write_bytes(lzma.decompress(path.read_bytes()))
    return target


@pytest.mark.parametrize("backend", BACKENDS)
def test_there_are_some_of_this_version(
    backend: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    paths = files(backend, VERSION)
    if request.config.getoption("--update"):
        write(backend_module(backend), paths, tmp_path)
    assert all(path.is_file() for path in paths), "pytest --update writes them"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.snapshot.xz")), ids=lambda path: path.name)
def test_an_old_file_is_read(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    match = re.fullmatch(r"(\w+)-(\d+)\.snapshot\.xz", path.name)
    assert match is not None
    backend, version = match.groups()
    arch = backend_module(backend)
    whole_file, part_file = (unpacked(p, tmp_path) for p in files(backend, int(version)))
    assert parts_of(whole_file).version == int(version)
    whole = arch.Snapshot.load(whole_file, verify=True)
    part = arch.Snapshot.load(part_file, base=whole, verify=True)
    with whole, part:
        assert whole.devices == {"serial": {"ier": 1, "input": "µ"}}
        assert part.devices == {"serial": None}
        assert whole.configuration.regions == tuple(REGIONS)
        assert (whole.configuration.vcpus, whole.configuration.irqchip) == (1, True)
        assert [snapshot.state.vcpus[0]["rax"] for snapshot in (whole, part)] == [1, 2]
        assert whole.state.vcpus[0]["rflags"] == 0x2
        try:
            vm = part.fork()
        except StateError as error:  # the processor that it was taken on had more
            assert error.problems
        else:
            with vm:
                assert vm.memory.read(0x2000, 2) == b"\2\0"
                assert vm.memory.read(0x10_0000, 8) == b"firmware"
                assert count(vm) == 3
    assert main(["state", str(whole_file)]) == 0
    assert f"machine state of {backend}\n" in capsys.readouterr().out
