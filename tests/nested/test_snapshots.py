"""Snapshots on stock kernels' KVM: increments, files that another process goes on from, and files
that came from another processor."""

from __future__ import annotations

import lzma
from collections.abc import Mapping
from pathlib import Path

import pytest
from vmm_arch import kvm_x86_64
from vmm_arch.errors import StateError

from nested.architecture import AMD, KERNELS
from nested.machine import Result
from nested.scenarios import PRODUCT
from nested.test_nested import machine_of

GOLDEN = Path(__file__).parents[1] / "backends/golden/kvm_x86_64-1.snapshot.xz"
TAKES = """
from vmm_arch import kvm_x86_64 as arch

def count(vm):
    return vm.vcpus[0].run().value

regions = [arch.Region(0, 0x20000)]
with arch.GuestMemory(regions) as memory, arch.Vm(memory, irqchip=True, track_dirty=True) as vm:
    memory.write(0x1000, bytes.fromhex("40 a3 00 80 e7 10 eb f8"))  # counts in AX and at 0x8000
    arch.configure_vcpu(vm.vcpus[0], arch.RealMode(0x1000))
    assert count(vm) == 1
    whole = vm.take_snapshot()
    assert count(vm) == 2
    memory.write(0x9000, b"host")
    part = vm.take_snapshot(base=whole)
    assert part.memory.top.extents == [(0x8000, 0xA000)], part.memory.top.extents
    whole.save("results/whole")
    part.save("results/part")
for snapshot, next in ((part, 3), (whole, 2), (part, 3)):
    with snapshot.fork() as vm:
        assert count(vm) == next
"""
GOES_ON = """
from vmm_arch import kvm_x86_64 as arch

with arch.Snapshot.load("results/whole", verify=True) as whole:
    with arch.Snapshot.load("results/part", base=whole, verify=True) as part, part.fork() as vm:
        assert vm.vcpus[0].run().value == 3
        assert vm.memory.read(0x9000, 4) == b"host"
        print("goes on")
"""
FROM_ELSEWHERE = """
from vmm_arch import kvm_x86_64 as arch

with arch.Snapshot.load("elsewhere", verify=True) as snapshot:
    try:
        snapshot.fork().close()
    except arch.StateError as error:
        print(*error.problems, sep="\\n")
"""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(AMD, marks=pytest.mark.xdist_group("saves-amd")),
        pytest.param("haswell", marks=pytest.mark.xdist_group("saves-intel")),
    ],
)
def inside(request: pytest.FixtureRequest) -> Result:
    commands = [
        "python3 takes.py && python3 goes_on.py",
        "python3 elsewhere.py >results/refused",
        "python3 -m vmm_arch state elsewhere results/whole >results/compared; echo $? >>results/compared",
    ]
    files: Mapping[str, bytes | Path] = {
        "vmm_arch": PRODUCT,
        "takes.py": TAKES.encode(),
        "goes_on.py": GOES_ON.encode(),
        "elsewhere.py": FROM_ELSEWHERE.encode(),
        "elsewhere": lzma.decompress(GOLDEN.read_bytes()),
    }
    machine = machine_of(request.param, KERNELS[0])
    return machine.run(files, ["sh", "-c", "\n".join(commands)], timeout=400)


def test_another_process_goes_on(inside: Result) -> None:
    assert inside.stdout == "goes on\n", inside.stderr


def test_what_the_other_processor_had_is_named(inside: Result) -> None:
    said = inside.files["refused"].decode()
    assert ": this host's processor does not have it (CPUID 0x" in said
    assert "taken on AuthenticAMD family " in said


def test_machines_of_two_processors_are_compared(inside: Result) -> None:
    *differences, status = inside.files["compared"].decode().splitlines()
    assert status == "1"
    assert any(line.startswith("vCPU 0: cpuid 0x7:0x0 ebx: ") for line in differences)
    assert any(line.startswith("memory: ") or "machine.regions" in line for line in differences)


def test_what_comes_from_there_is_read_here(inside: Result, tmp_path: Path) -> None:
    path = tmp_path / "whole"
    path.write_bytes(inside.files["whole"])
    with kvm_x86_64.Snapshot.load(path, verify=True) as snapshot:
        assert snapshot.state.vcpus[0]["rax"] == 1
        try:
            snapshot.fork().close()
        except StateError as error:  # unless this host has all that the other processor has
            assert error.problems
