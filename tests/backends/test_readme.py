"""The README's example works when it is copied literally, and prints what the README says."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from backends import BACKENDS, backend_module
from images import flat_kernel
from readme import boots_linux
from requirements import require
from vmm_arch.abi import whp_x86_64
from vmm_arch.whp import VARIABLE
from whp.build import PLATFORM, libraries


def test_the_first_example(checkout: Path, tmp_path: Path) -> None:
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")
    text = (checkout / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.S)
    shown = re.search(r"```console\n\$ python3 first.py\n(.*?)```", text, re.S)
    assert code is not None
    assert shown is not None
    (tmp_path / "first.py").write_text(code[1])
    done = subprocess.run(
        [sys.executable, "first.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == (shown[1], "")


SHOWS_ITS_COMMAND_LINE = bytes.fromhex(
    "8b 9e 28 02 00 00"  # mov ebx, [rsi + 0x228]: cmd_line_ptr of the zero page
    "8a 03"  # next: mov al, [rbx]
    "84 c0"  # test al, al
    "74 09"  # jz off
    "66 ba f8 03"  # mov dx, 0x3f8
    "ee"  # out dx, al
    "ff c3"  # inc ebx
    "eb f1"  # jmp next
    "66 ba 00 06"  # off: mov dx, 0x600
    "b0 34"  # mov al, 0x34
    "ee"  # out dx, al: power off
    "f4"  # hlt
)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_example_that_boots_linux(checkout: Path, tmp_path: Path, backend: str) -> None:
    """With code in the kernel's place that shows what the kernel is told; the nested machine boots one."""
    arch = backend_module(backend)
    (tmp_path / "boot.py").write_text(boots_linux(checkout, backend))
    flat_kernel(tmp_path / "vmlinuz", SHOWS_ITS_COMMAND_LINE)
    (tmp_path / "initrd.img").write_bytes(b"initrd")
    done = subprocess.run(
        [sys.executable, "boot.py"],
        cwd=tmp_path,
        env=os.environ | {VARIABLE: str(libraries() / PLATFORM)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stderr == ""
    assert re.fullmatch(
        r"console=ttyS0 .*pci=off tsc_early_khz=\d+ quietpower off by vCPU 0 after .*\n",
        done.stdout,
    )
    with arch.GuestMemory(0x1000) as memory, arch.Vm(memory) as vm:
        said = re.search(r"tsc_early_khz=(\d+)", done.stdout)
        assert said is not None
        assert int(said[1]) == pytest.approx(vm.vcpus[0].get_tsc_khz(), rel=0.01)


def test_the_example_that_prepares_a_machine(checkout: Path) -> None:
    """Every record is made, and is of the size that the property has."""

    class Recorder:
        def set_property(self, code: int, value: Any) -> None:
            sizes[code] = ctypes.sizeof(value)

    sizes: dict[int, int] = {}
    found = re.search(r"```python\n(def prepare.*?)```", (checkout / "README.md").read_text(), re.S)
    assert found is not None
    names: dict[str, Any] = {"abi": whp_x86_64, "ctypes": ctypes}
    exec(found[1], names)
    names["prepare"](Recorder())
    assert sizes == {
        whp_x86_64.WHvPartitionPropertyCodeSeparateSecurityDomain: 4,
        whp_x86_64.WHvPartitionPropertyCodeProcessorFeaturesBanks: 24,
        whp_x86_64.WHvPartitionPropertyCodeSyntheticProcessorFeaturesBanks: 16,
        whp_x86_64.WHvPartitionPropertyCodeMsrActionList: 8,
    }


def test_the_functions_that_are_shown_are_the_generated_ones(checkout: Path) -> None:
    text = (checkout / "README.md").read_text()
    shown = re.findall(r"```python\n(def configure_long64.*?)```", text, re.S)
    for function, backend in zip(shown, ("kvm_x86_64", "whp_x86_64"), strict=True):
        assert function in (checkout / f"generated/vmm_arch/{backend}.py").read_text()
