"""State that an interface can move is in a sink or declared to be none: otherwise nothing is generated."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from toy import BATCH, CPU, write_toy
from vmm_arch_gen.abi.model import Abi, Enum, Ioctl, VerifiedAbi
from vmm_arch_gen.abi.reader import read_abi_file
from vmm_arch_gen.abi.transfers import transfers
from vmm_arch_gen.arch.check_complete import check_complete, check_spelling
from vmm_arch_gen.arch.contract import Contract, read_contract
from vmm_arch_gen.arch.hypervisor import Hypervisor, read_hypervisor
from vmm_arch_gen.diagnostics import InputError
from vmm_arch_gen.generate.backend_module import calls_not_made, render_backend_module
from vmm_arch_gen.project import Project

MADE = f"templates/hypervisors/made/{CPU}/state.py"


def facts(paths: Project, target: str) -> VerifiedAbi:
    return read_abi_file(paths.abi / f"{target}.abi")


def with_calls(abi: Abi, *names: str) -> VerifiedAbi:
    more = tuple(Ioctl(name, 0, "none", None, "linux/new.h") for name in names)
    return VerifiedAbi(replace(abi, ioctls=(*abi.ioctls, *more)))


def without_calls(abi: Abi) -> Abi:
    return replace(abi, ioctls=(), functions=())


def with_name(abi: Abi, enum: str, name: str) -> VerifiedAbi:
    old = abi.enums[enum]
    enums = {**abi.enums, enum: replace(old, enumerators=(*old.enumerators, (name, 0x7777)))}
    return VerifiedAbi(replace(abi, enums=enums))


def of(paths: Project, target: str) -> tuple[Contract, Hypervisor]:
    name, _, cpu = target.partition("_")
    return read_contract(paths.templates, cpu), read_hypervisor(paths.templates, name, cpu)


def toy(templates: Path, old: str = "", new: str = "") -> tuple[Contract, Hypervisor]:
    assert old in BATCH["state.py"]
    state = BATCH["state.py"].replace(old, new)
    write_toy(templates, made={**BATCH, "state.py": state})
    return read_contract(templates, CPU), read_hypervisor(templates, "made", CPU)


@pytest.mark.parametrize(
    ("target", "pairs", "others"),
    [("kvm_x86_64", 21, 13), ("kvm_aarch64", 11, 12), ("whp_x86_64", 11, 4)],
)
def test_calls_that_move_the_same_thing(
    paths: Project, target: str, pairs: int, others: int
) -> None:
    found = transfers(facts(paths, target))
    assert len([t for t in found if t.reads]) == pairs
    assert len([t for t in found if not t.reads]) == others


@pytest.mark.parametrize(
    ("target", "reads", "writes"),
    [
        ("kvm_x86_64", ("KVM_GET_XSAVE", "KVM_GET_XSAVE2"), ("KVM_SET_XSAVE",)),
        ("kvm_x86_64", ("KVM_GET_CPUID2",), ("KVM_SET_CPUID", "KVM_SET_CPUID2")),
        ("kvm_x86_64", ("KVM_XEN_HVM_GET_ATTR",), ("KVM_XEN_HVM_SET_ATTR",)),
        ("kvm_x86_64", (), ("KVM_X86_SET_MSR_FILTER",)),
        ("kvm_aarch64", ("KVM_GET_ONE_REG",), ("KVM_SET_ONE_REG",)),
        (
            "whp_x86_64",
            ("WHvGetVirtualProcessorRegisters",),
            ("WHvSetVirtualProcessorRegisters",),
        ),
    ],
)
def test_names_that_are_not_alike_but_for_get_and_set(
    paths: Project, target: str, reads: tuple[str, ...], writes: tuple[str, ...]
) -> None:
    assert (reads, writes) in [(t.reads, t.writes) for t in transfers(facts(paths, target))]


def test_what_can_only_be_read_is_no_state(paths: Project) -> None:
    found = {name for t in transfers(facts(paths, "kvm_x86_64")) for name in t.names}
    assert not found & {"KVM_GET_API_VERSION", "KVM_GET_DIRTY_LOG", "KVM_GET_MSR_INDEX_LIST"}


@pytest.mark.parametrize("target", ["kvm_x86_64", "whp_x86_64"])
def test_the_state_of_our_hypervisors_is_declared(paths: Project, target: str) -> None:
    contract, hypervisor = of(paths, target)
    abi = facts(paths, target)
    assert not list(check_complete(contract, hypervisor, abi))
    assert not list(check_spelling(hypervisor, abi))


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (
            ("KVM_GET_FRED", "KVM_SET_FRED"),
            "lacks KVM_GET_FRED and KVM_SET_FRED of linux/new.h, which no sink has either; if it is"
            ' the guest\'s state, write "calls": ("KVM_GET_FRED", "KVM_SET_FRED",) in its sink; if'
            ' not, write here "KVM_GET_FRED": "why it is not"',
        ),
        (("KVM_X86_SET_FRED",), "lacks KVM_X86_SET_FRED of linux/new.h, which no sink has either"),
        # A newer form of a call that is known.
        (
            ("KVM_GET_XSAVE3",),
            "lacks KVM_GET_XSAVE3 of linux/kvm.h, which no sink has either; KVM_GET_XSAVE and"
            " KVM_GET_XSAVE2 and KVM_SET_XSAVE are declared",
        ),
    ],
)
def test_new_calls_stop_the_generator(
    paths: Project, names: tuple[str, ...], complaint: str
) -> None:
    contract, hypervisor = of(paths, "kvm_x86_64")
    abi = with_calls(facts(paths, "kvm_x86_64"), *names)
    (problem,) = check_complete(contract, hypervisor, abi)
    assert problem.where.startswith("templates/hypervisors/kvm/x86_64/state.py:")
    assert f"NOT_STATE: {complaint}" in str(problem)
    with pytest.raises(InputError, match=names[0]):
        render_backend_module(paths.templates, abi, "# Generated")


def test_a_new_register_stops_the_generator(paths: Project) -> None:
    contract, hypervisor = of(paths, "whp_x86_64")
    abi = with_name(facts(paths, "whp_x86_64"), "enum WHV_REGISTER_NAME", "WHvX64RegisterFred")
    (problem,) = check_complete(contract, hypervisor, abi)
    assert "lacks WHvX64RegisterFred of winhvplatformdefs.h, and registers has no" in problem.what
    assert '"own": ("WHvX64RegisterFred",) in the sink' in problem.remedy


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("NOT_STATE = {}", 'NOT_STATE = {"GET_IT": ""}', ":17: NOT_STATE: GET_IT has no reason"),
        (
            "NOT_STATE = {}",
            'NOT_STATE = {"SET_IT": "no"}',
            ":17: NOT_STATE: SET_IT is state of the sink all, and SET_IT says that it is none",
        ),
        ("NOT_STATE = {}", "", "does not define NOT_STATE"),
        ('"calls": ("GET_IT", ', '"calls": ("GET_IT", 5, ', ":9: SINKS: the calls of all is "),
        (
            '"shape": "table",',
            '"shape": "keywords", "names": "enum x",',
            ":5: SINKS: all names an enum, but is not a table",
        ),
        (
            '"shape": "table",',
            '"shape": "table", "own": ("X",),',
            ":5: SINKS: all has names of its own, but does not name their enum",
        ),
        (
            '"shape": "table",',
            '"shape": "table", "names": "enum kvm_devices_type",',
            ":5: SINKS: all: no such enum in the headers: enum kvm_devices_type; did you mean",
        ),
        (
            '"shape": "table",',
            '"shape": "table", "names": "enum kvm_device_type",',
            "NOT_STATE: lacks KVM_DEV_TYPE_FSL_MPIC_20, ",
        ),
    ],
)
def test_a_malformed_declaration_is_refused(
    tmp_path: Path, paths: Project, old: str, new: str, complaint: str
) -> None:
    calls = '"calls": ("GET_IT", "SET_IT"),'
    state = BATCH["state.py"].replace('"composites"', f'{calls}\n        "composites"')
    assert old in state
    write_toy(tmp_path, made={**BATCH, "state.py": state.replace(old, new)})
    contract, hypervisor = read_contract(tmp_path, CPU), read_hypervisor(tmp_path, "made", CPU)
    abi = with_calls(without_calls(facts(paths, "kvm_x86_64")), "GET_IT", "SET_IT")
    found = [*hypervisor.problems, *check_complete(contract, hypervisor, abi)]
    assert any(complaint in str(problem) for problem in found), found


def test_names_that_the_headers_do_not_have(tmp_path: Path, paths: Project) -> None:
    old = '"composites"'
    new = '"calls": ("KVM_GET_REG", "KVM_SET_REGS"), "composites"'
    _, hypervisor = toy(tmp_path, old, new)
    (problem,) = check_spelling(hypervisor, facts(paths, "kvm_x86_64"))
    assert f"{MADE}:9: SINKS: all: no call of the headers that sets or gets" in str(problem)
    assert "did you mean KVM_GET_REGS" in problem.remedy
    _, hypervisor = toy(tmp_path, "NOT_STATE = {}", 'NOT_STATE = {"KVM_SET_REGZ": "no"}')
    (problem,) = check_spelling(hypervisor, facts(paths, "kvm_x86_64"))
    assert f"{MADE}:16: NOT_STATE: no call that sets or gets" in str(problem)


def test_an_own_name_is_not_an_elements(tmp_path: Path, paths: Project) -> None:
    names = '"names": "enum toy", "own": ("PC", "SPARE"), "composites"'
    contract, hypervisor = toy(tmp_path, '"composites"', names)
    enum = Enum("enum toy", "int", (("PC", 1), ("CODE", 2), ("PAGING", 3)), "toy.h")  # type: ignore[arg-type]
    abi = VerifiedAbi(replace(without_calls(facts(paths, "kvm_x86_64")), enums={"enum toy": enum}))
    (problem,) = check_complete(contract, hypervisor, abi)
    assert "all: PC is the slot of an element, and PC makes it its own" in problem.what
    (problem,) = check_spelling(hypervisor, abi)
    assert "no enumerator of enum toy is called SPARE" in problem.what


def test_a_call_that_is_declared_as_state_is_made(tmp_path: Path, paths: Project) -> None:
    templates = shutil.copytree(paths.templates, tmp_path / "templates")
    operations = templates / "hypervisors/kvm/x86_64/operations.py.j2"
    text = operations.read_text()
    operations.write_text(text.replace("KVM_SET_DEBUGREGS", "KVM_SET_XCRS"))
    draft = render_backend_module(templates, facts(paths, "kvm_x86_64"), "# Generated")
    (problem,) = calls_not_made(draft.inputs.hypervisor, draft.rendered.text)
    assert "debugregs: the module never makes the call KVM_SET_DEBUGREGS" in str(problem)
