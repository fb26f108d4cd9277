"""``vmm-arch state``: what it shows of saved machines, and what differs between two."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from snapshot_files import deep, parts_of
from vmm_arch.__main__ import main
from vmm_arch.memory import Region
from vmm_arch.selftest.x86_64.harness import AnyBackend
from vmm_arch.x86_64.entry import RealMode

REGIONS = [Region(0, 0x10000), Region(0x10_0000, 0x4000)]


@contextmanager
def machine(arch: AnyBackend, **options: Any) -> Iterator[Any]:
    with arch.GuestMemory(REGIONS) as memory, arch.Vm(memory, **options) as vm:
        memory.write(0x1000, b"\xf4")
        arch.configure_vcpu(vm.vcpus[0], RealMode(0x1000))
        yield vm


@pytest.fixture
def files(arch: AnyBackend, tmp_path: Path) -> tuple[str, str]:
    """Two snapshots of one machine: registers, devices and memory differ."""
    before, after = str(tmp_path / "before"), str(tmp_path / "after")
    with machine(arch) as vm:
        with vm.take_snapshot(devices={"serial": {"ier": 0, "text": "a"}}) as snapshot:
            snapshot.save(before)
        vm.vcpus[0].restore(vm.vcpus[0].save().replace({"rax": 0x77, "rflags": 0x43}))
        vm.memory.write(0x5000, b"\1")
        vm.memory.write(0x6FFF, b"\1\1")
        vm.memory.write(0x10_3000, b"\1")
        with vm.take_snapshot(devices={"serial": {"ier": 1, "text": "a"}}) as snapshot:
            snapshot.save(after)
    return before, after


def test_a_snapshot_is_shown(
    files: tuple[str, str], arch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["state", files[0]]) == 0
    text = capsys.readouterr().out
    name = arch.__name__.rpartition(".")[2]
    assert text.startswith(f"snapshot of {name}, digest ")
    for part in (
        "machine: 1 vCPU\n",
        "memory: [0x0, 0x10000), [0x100000, 0x104000); 0x1000 bytes of 0x14000 stored\n",
        "devices: serial\n",
        f"machine state of {name}\n",
        "  rip = 0x1000\n",
    ):
        assert part in text
    assert "taken on: " in text


def test_what_differs_is_listed(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["state", *files]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "devices.serial.ier: 0 -> 1" in lines
    assert "vCPU 0: rax: 0x0 -> 0x77" in lines
    assert "vCPU 0: rflags: 0x2 -> 0x43 (+CF, +ZF)" in lines
    assert lines[-1] == "memory: 4 pages differ: [0x5000, 0x8000), [0x103000, 0x104000)"
    assert len(lines) == 4
    assert main(["state", "--no-memory", *files]) == 1
    assert "memory" not in capsys.readouterr().out


def test_the_same_twice(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["state", files[0], files[0], "--verify"]) == 0
    assert capsys.readouterr().out == "no differences\n"


def test_json(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["state", "--json", *files]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["memory"] == [["0x5000", "0x8000"], ["0x103000", "0x104000"]]
    assert found["differences"][0] == {"name": "devices.serial.ier", "mine": 0, "theirs": 1}
    assert {"name": "vCPU 0: rax", "mine": "0x0", "theirs": "0x77"} in found["differences"]
    assert main(["state", "--json", files[0]]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["format"] == "vmm-arch snapshot"
    assert shown["machine"]["vcpus"] == 1
    assert shown["extents"] == [["0x1000", "0x2000"]]
    assert shown["state"]["format"] == "vmm-arch machine state"


def test_states_as_text(
    arch: AnyBackend, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other, whole = (tmp_path / name for name in ("one", "other", "whole"))
    with machine(arch) as vm:
        state = vm.vcpus[0].save()
        one.write_text(state.to_json())
        other.write_text(state.replace({"rbx": 5}).to_json())
        whole.write_text(vm.save().to_json())
    assert main(["state", str(one)]) == 0
    assert capsys.readouterr().out == f"{state}\n"
    assert main(["state", str(one), str(other)]) == 1
    assert capsys.readouterr().out == "rbx: 0x0 -> 0x5\n"
    assert main(["state", str(one), str(one)]) == 0
    capsys.readouterr()
    assert main(["state", str(one), str(whole)]) == 2
    said = capsys.readouterr().err
    assert f"one is of a vCPU of {state._backend}; " in said
    assert f"whole is of a machine of {state._backend}" in said


def test_machines_that_were_made_differently(
    arch: AnyBackend, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = []
    for vcpus in (1, 2):
        paths.append(str(tmp_path / str(vcpus)))
        with machine(arch, vcpus=vcpus) as vm, vm.take_snapshot() as snapshot:
            snapshot.save(paths[-1])
    assert main(["state", *paths]) == 1
    text = capsys.readouterr().out
    assert "machine.vcpus: 1 -> 2\n" in text
    assert "vCPUs: 0x1 -> 0x2\n" in text


def test_trouble(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("hello")
    (tmp_path / "json").write_text('{"format": 1}')
    (tmp_path / "deep").write_text('{"a":' * 100_000)
    (tmp_path / "other").write_text('{"format": "vmm-arch vCPU state", "backend": "os.system"}')
    (tmp_path / "half").write_text('{"format": "vmm-arch vCPU state", "backend": "kvm_x86_64"}')
    for name, said in (
        ("missing", "No such file"),
        ("pipe", "is not a regular file"),
        ("empty", "is empty"),
        ("text", "is neither a snapshot nor the text of a state"),
        ("json", "is neither a snapshot nor the text of a state"),
        ("deep", "lies too deep in itself to be read"),
        ("other", "vmm-arch has no backend 'os.system'"),
        ("half", "sinks: missing or not a JSON object"),
    ):
        assert main(["state", str(tmp_path / name)]) == 2
        captured = capsys.readouterr()
        assert not captured.out
        assert captured.err.startswith("vmm-arch state: ")
        assert said in captured.err


def test_whoever_wrote_a_file_has_no_say_over_the_terminal(
    files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = parts_of(Path(files[0]))
    data = parts.data
    data["devices"] = {"\x1b]0;title\x07\n": "\x1b[2J\ud800"}
    evil = str(parts.with_data(data).write(tmp_path / "evil"))
    assert main(["state", evil]) == 0
    assert main(["state", files[0], evil]) == 1
    data["machine"]["\x1b[2J"] = data["state"]["\x1b"] = deep(20)
    worse = str(parts.with_data(data).write(tmp_path / "worse"))
    assert main(["state", worse]) == 2
    captured = capsys.readouterr()
    for text in (captured.out, captured.err):
        assert text.replace("\n", "").isprintable()
    assert "devices: \\x1b]0;title\\x07\\n\n" in captured.out
