"""Code that takes any backend, through the protocols of ``vmm_arch.protocols``.

mypy checks this file with the rest: that kvm_x86_64 is accepted for a Backend is half of the test.
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

from requirements import require
from vmm_arch import kvm_x86_64
from vmm_arch.exits import Halt, IoIn
from vmm_arch.memory import GuestMemory
from vmm_arch.protocols import x86_64 as protocols
from vmm_arch.protocols.x86_64 import Backend, FpuT, LapicT, RegsT, SregsT, Vcpu, VcpuT
from vmm_arch.x86_64.entry import RealMode


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


def test_a_backend_chosen_at_run_time() -> None:
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")
    assert run_code(kvm_x86_64, b"\xe4\x10\xf4", 0x2A) & 0xFF == 0x2A


def test_a_backend_has_exactly_the_contracts_methods() -> None:
    """Names and parameters; the hypervisor's own way out is the only thing more."""
    for protocol, backend in ((protocols.Vcpu, kvm_x86_64.Vcpu), (protocols.Vm, kvm_x86_64.Vm)):
        wanted = {name for name in vars(protocol) if not name.startswith("_")}
        found = {name for name in vars(backend) if not name.startswith("_")}
        extra = {"fd", "ioctl", "run_context", "vm", "cpuid", "other_msrs"}
        assert found - extra == wanted
        for name in wanted:
            ours, theirs = getattr(backend, name), getattr(protocol, name)
            if inspect.isfunction(theirs):
                assert [*inspect.signature(ours).parameters] == [
                    *inspect.signature(theirs).parameters
                ]
                assert inspect.getdoc(ours) == inspect.getdoc(theirs)


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
