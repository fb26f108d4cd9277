"""A toy hypervisor's folder, read and compared with the contract."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from toy import CPU, STATES, TEMPLATE, write_toy
from vmm_arch_gen.abi.model import VerifiedAbi
from vmm_arch_gen.abi.reader import read_abi_file
from vmm_arch_gen.arch.check import check
from vmm_arch_gen.arch.contract import read_contract
from vmm_arch_gen.arch.hypervisor import read_hypervisor
from vmm_arch_gen.arch.states import read_states
from vmm_arch_gen.project import Project

OPERATIONS = f"templates/hypervisors/made/{CPU}/operations.py.j2"
STATE = f"templates/hypervisors/made/{CPU}/state.py"


def problems(
    templates: Path,
    paths: Project,
    folder: dict[str, str],
    template: str = TEMPLATE,
    states: str = STATES,
) -> list[str]:
    write_toy(templates, made=folder)
    (templates / f"cpu/{CPU}/states.py").write_text(states)
    path = f"cpu/{CPU}/functions.py.j2"
    (templates / path).write_text(template)
    contract = read_contract(templates, CPU)
    named = read_states(templates, CPU, contract)
    hypervisor = read_hypervisor(templates, "made", CPU)
    abi = without_calls(read_abi_file(paths.abi / "kvm_x86_64.abi"))
    return [str(problem) for problem in check(contract, named, hypervisor, abi, templates, path)]


def without_calls(abi: VerifiedAbi) -> VerifiedAbi:
    """Facts whose calls need not be declared; test_complete.py has the others."""
    return VerifiedAbi(replace(abi, ioctls=(), functions=()))


def changed(folder: dict[str, str], file: str, old: str, new: str) -> dict[str, str]:
    assert old in folder[file]
    return folder | {file: folder[file].replace(old, new)}


def refusal(templates: Path, folder: dict[str, str]) -> str:
    write_toy(templates, made=folder)
    hypervisor = read_hypervisor(templates, "made", CPU)
    assert hypervisor.problems
    return "\n".join(map(str, hypervisor.problems))
