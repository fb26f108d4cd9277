"""What every backend's vCPU and machine have inside: the second contract."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from vmm_arch_gen.abi.reader import read_abi_file
from vmm_arch_gen.diagnostics import InputError
from vmm_arch_gen.generate.backend_module import render_backend_module
from vmm_arch_gen.project import Project

INSIDE = "templates/vmm_arch/protocols/inside.py"


@pytest.mark.parametrize("room", ["kvm", "whp/x86_64"])
@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (
            "def _drop_pending_exit(",
            "def _drop_exit(",
            rf"vcpu_members lacks the method _drop_pending_exit of {INSIDE}:\d+; did you mean _drop_exit",
        ),
        (
            "def _complete_pending(self) -> None:",
            "def _complete_pending(self, patience: int) -> None:",
            rf"_complete_pending is not as {INSIDE}:\d+ has it; write def _complete_pending\(self\) -> None:",
        ),
        ("def _close(", "def _clothe(", "lacks the method _close .* write def _close"),
        ("_unanswered", "_questioned", "lacks _unanswered of .*write _unanswered: Any"),
    ],
)
def test_what_is_called_otherwise_is_refused(
    tmp_path: Path, paths: Project, room: str, old: str, new: str, complaint: str
) -> None:
    templates = tmp_path / "templates"
    shutil.copytree(paths.templates, templates)
    file = templates / f"hypervisors/{room}/vcpu.py.j2"
    for path in (file, file.parent / "x86_64/vcpu.py.j2"):  # what it puts in of KVM's, too
        if path.is_file():
            path.write_text(path.read_text().replace(old, new))
    abi = read_abi_file(paths.abi / f"{room.partition('/')[0]}_x86_64.abi")
    with pytest.raises(InputError) as refused:
        render_backend_module(templates, abi, "# Marked")
    where = f"templates/hypervisors/{room}/vcpu.py.j2:"
    assert all(str(problem).startswith(where) for problem in refused.value.problems)
    assert any(re.search(complaint, str(problem)) for problem in refused.value.problems), refused


def test_what_machines_of_one_cpu_are_asked_for_are_attributes(
    tmp_path: Path, paths: Project
) -> None:
    templates = tmp_path / "templates"
    shutil.copytree(paths.templates, templates)
    contract = templates / "vmm_arch/protocols/x86_64.py"
    asked = "    cpuid: list[CpuidEntry]\n"
    more = '    nested: bool\n    """Whether it may have guests."""\n'
    contract.write_text(contract.read_text().replace(asked, f"{more}{asked}"))
    for target in ("kvm_x86_64", "whp_x86_64"):
        abi = read_abi_file(paths.abi / f"{target}.abi")
        text = render_backend_module(templates, abi, "# Marked").finished()
        machine = text[text.index("class Vm:") :]
        assert more in machine
        assert '        "nested",\n' in machine[: machine.index(more)]


def test_every_backend_has_it_with_these_types(checkout: Path, tmp_path: Path) -> None:
    """As a type checker sees it: the generator compares names and signatures only."""
    program = tmp_path / "inside.py"
    program.write_text(
        "from vmm_arch import kvm_x86_64, whp_x86_64\n"
        "from vmm_arch.protocols.inside import VcpuInside, VmInside\n\n\n"
        "def kvm_vcpu(vcpu: kvm_x86_64.Vcpu) -> VcpuInside:\n    return vcpu\n\n\n"
        "def kvm_vm(vm: kvm_x86_64.Vm) -> VmInside:\n    return vm\n\n\n"
        "def whp_vcpu(vcpu: whp_x86_64.Vcpu) -> VcpuInside:\n    return vcpu\n\n\n"
        "def whp_vm(vm: whp_x86_64.Vm) -> VmInside:\n    return vm\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "mypy")]
    done = subprocess.run(
        [*command, str(program)],
        env={"MYPYPATH": str(checkout / "generated"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
