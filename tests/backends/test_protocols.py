"""Code that takes any backend, through the protocols of ``vmm_arch.protocols``.

mypy checks this file with the rest: that each module is accepted for a Backend is half of the test.
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from requirements import require
from vmm_arch import kvm_x86_64, whp_x86_64
from vmm_arch.exits import Halt
from vmm_arch.memory import GuestMemory
from vmm_arch.protocols import x86_64 as protocols
from vmm_arch.protocols.x86_64 import Backend, FpuT, LapicT, RegsT, SregsT, Vcpu, VcpuT
from vmm_arch.x86_64.entry import RealMode
from vmm_arch.x86_64.exits import IoIn


def answer(vcpu: Vcpu[RegsT, SregsT, FpuT, LapicT], value: int) -> int:
    """Run a guest, answer what it reads, and say what is in RAX when it halts."""
    while not isinstance(exit := vcpu.run(), Halt):
        if isinstance(exit, IoIn):
            exit.complete(value)
    regs = vcpu.get_regs()
    regs.rbx = regs.rax
    vcpu.set_regs(regs)
    return vcpu.get_regs().rbx


def run_code(arch: Backend[VcpuT], code: bytes, value: int) -> int:
    """Run real-mode code on whatever hypervisor there is."""
    memory = arch.GuestMemory(0x10000)
    memory.write(0x1000, code)
    entry = RealMode(0x1000)
    with memory, arch.Vm(memory) as vm:
        assert isinstance(vm.memory, GuestMemory)
        arch.configure_system(vm, entry)
        vcpu = vm.vcpus[0]
        arch.configure_vcpu(vcpu, entry)
        return answer(vcpu, value)


KVM: Backend[kvm_x86_64.Vcpu] = kvm_x86_64
WHP: Backend[whp_x86_64.Vcpu] = whp_x86_64


def test_a_backend_chosen_at_run_time() -> None:
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")
    assert run_code(kvm_x86_64, b"\xe4\x10\xf4", 0x2A) & 0xFF == 0x2A


OWN = {
    kvm_x86_64: {"fd", "ioctl", "run_context", "vm", "cpuid"},
    whp_x86_64: {
        *(
            "partition",
            "run_context",
            "vm",
            "cpuid",
            "msr_exits_wanted",
            "lacking",
            "set_property",
            "note_written",
            "written",
        ),
        *("devices", "ioapic", "read_registers", "write_registers", "translate_page"),
        "single_stepped",
    },
}
"""What a backend's classes have beside the contract: the hypervisor's own way out."""


@pytest.mark.parametrize("module", OWN, ids=lambda module: module.__name__)
def test_a_backend_has_exactly_the_contracts_methods(module: ModuleType) -> None:
    for protocol, backend in ((protocols.Vcpu, module.Vcpu), (protocols.Vm, module.Vm)):
        wanted = {name for name in vars(protocol) if not name.startswith("_")}
        found = {name for name in vars(backend) if not name.startswith("_")}
        assert found - OWN[module] == wanted
        for name in wanted:
            ours, theirs = getattr(backend, name), getattr(protocol, name)
            if inspect.isfunction(theirs):
                assert [*inspect.signature(ours).parameters] == [
                    *inspect.signature(theirs).parameters
                ]
                assert inspect.getdoc(ours) == inspect.getdoc(theirs)


def test_all_backends_export_the_same_names_with_the_same_signatures() -> None:
    assert kvm_x86_64.__all__ == whp_x86_64.__all__
    for name in kvm_x86_64.__all__:
        ours, theirs = getattr(kvm_x86_64, name), getattr(whp_x86_64, name)
        if inspect.isfunction(ours):
            assert str(inspect.signature(ours)) == str(inspect.signature(theirs))
            assert inspect.getdoc(ours) == inspect.getdoc(theirs)
        assert isinstance(ours, type) == isinstance(theirs, type)


@pytest.mark.parametrize("record", ["Regs", "Sregs", "Fpu"])
def test_records_have_the_same_fields(record: str) -> None:
    names = [n for n in vars(protocols)[record].__annotations__ if not n.startswith("_")]
    names += [n for n, v in vars(vars(protocols)[record]).items() if isinstance(v, property)]
    for module in OWN:
        found = getattr(module, record)()
        assert [n for n in names if not hasattr(found, n)] == []


REFUSED = """
from vmm_arch import kvm_x86_64, memory
from vmm_arch.protocols.x86_64 import Backend
from typing import Any
good: Backend[kvm_x86_64.Vcpu] = kvm_x86_64
bad: Backend[Any] = memory
def use(vm: kvm_x86_64.Vm) -> None:
    vm.vcpus[0].set_regs(vm.vcpus[0].get_sregs())
    match vm.vcpus[0].run():
        case kvm_x86_64.IoOut(port=0x3F8, data=data):
            reveal_type(data)
"""


def test_mypy_sees_through_the_generated_module(checkout: Path, tmp_path: Path) -> None:
    source = tmp_path / "user.py"
    source.write_text(REFUSED)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), str(source)]
    environment = os.environ | {"MYPYPATH": str(checkout / "generated")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    found = [line.split(":")[1:4] for line in done.stdout.splitlines() if "user.py:" in line]
    errors = {int(line) for line, kind, _ in found if kind.strip() == "error"}
    assert errors == {6, 8}, done.stdout
    assert 'Revealed type is "bytes"' in done.stdout or "builtins.bytes" in done.stdout
