"""What may import what in ``templates/vmm_arch``: docs/design.md, "Four kinds of code", as a test."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from vmm_arch.command import x86_64
from vmm_arch.command.cpu import Cpu
from vmm_arch.selftest.play import Suite
from vmm_arch_gen.project import project
from vmm_arch_gen.targets import load_targets

TEMPLATES = project().templates
PACKAGE = TEMPLATES / "vmm_arch"
CPU: Cpu = x86_64
"""That the commands' part of each CPU has what they want of it is for mypy to see."""

ABOVE = ("protocols", "selftest", "command", "__main__")
"""Rooms over the others, ascending: nobody imports from one above."""


def owners() -> set[str]:
    """Every CPU that there is an ABI for, and every hypervisor with a backend, by its name."""
    targets = load_targets(project().targets_file).targets.values()
    return {target.cpu for target in targets} | {t.family for t in targets if t.backend}


OWNERS = owners()
CPUS = {path.name for path in (TEMPLATES / "cpu").iterdir()}


def module_name(path: Path) -> str:
    parts = path.relative_to(TEMPLATES).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(module: str) -> Iterator[str]:
    """The modules of the package that one imports, for types only as well."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                found = [name.name for name in names]
            case ast.ImportFrom(module=str() as source, names=names):
                inner = [f"{source}.{name.name}" for name in names]
                found = [name if name in MODULES else source for name in inner]
                if source == "vmm_arch.abi":  # generated, so that no file is here
                    found = inner
            case _:
                continue
        yield from (name for name in found if name.split(".")[0] == "vmm_arch")


IMPORTS: Mapping[str, list[str]] = {module: sorted(set(imported(module))) for module in MODULES}


def owned_by(module: str) -> set[str]:
    """The CPU and the hypervisor that a module is for, as the names on the way to it say."""
    return {
        owner
        for owner in OWNERS
        for part in module.split(".")
        if part == owner or part.startswith(f"{owner}_") or part.endswith(f"_{owner}")
    }


def room(module: str) -> str:
    return (
        module if MODULES.get(module, PACKAGE).name == "__init__.py" else module.rpartition(".")[0]
    )


def level(module: str) -> int:
    room = (*module.split("."), "")[1]
    return ABOVE.index(room) + 1 if room in ABOVE else 0


@pytest.mark.parametrize("cpu", sorted(path.name for path in (TEMPLATES / "cpu").iterdir()))
def test_every_cpu_has_what_the_commands_and_the_self_test_leave_to_it(cpu: str) -> None:
    """Either is left out, which the commands say, or there whole."""
    wanted = {name for name in vars(Cpu) if not name.startswith("_")}
    if find_spec(f"vmm_arch.command.{cpu}") is not None:
        assert wanted <= vars(import_module(f"vmm_arch.command.{cpu}")).keys()
    if find_spec(f"vmm_arch.selftest.{cpu}") is not None:
        assert Suite(cpu).names


OF_ONE_CPU = re.compile(
    r"msrs?|cpuid|lapic|apic|ioapic|pit2?|xsave2?|xcrs?|[gi]dt|rip|rflags|tsc|hlt|nmi|smi|sipi|ports?"
    r"|xen|hyperv|tdx|sev|snp|amd|intel|psci|smccc|gic|vgic|mpidr|pstate|sbi|csr|plic|aia"
)
"""Words that belong to one CPU or another."""
FOR_EVERY_CPU = [
    TEMPLATES / "backend.py.j2",
    *sorted((TEMPLATES / "hypervisors").glob("*/*.j2")),
    *(path for module, path in MODULES.items() if not owned_by(module) & CPUS),
]


@pytest.mark.parametrize("path", FOR_EVERY_CPU, ids=lambda path: str(path.relative_to(TEMPLATES)))
def test_what_is_for_every_cpu_uses_no_names_of_one(path: Path) -> None:
    """Names only: a comment or message may give an example."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".j2":
        text = (
            re.sub(r"\{#.*?#\}|\{%.*?%\}", "", text, flags=re.S).replace("{{", "").replace("}}", "")
        )
        text = re.sub(r'\{#.*?#\}|\{%.*?%\}|""".*?"""', "", text, flags=re.S)
        text = re.sub(r'"[^"\n]*"|#.*', "", text)
        names = set(re.findall(r"[A-Za-z_]\w*", text))
    else:
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        names = {token.string for token in tokens if token.type == tokenize.NAME}
    words = {word: name for name in names for word in name.lower().split("_")}
    found = {name for word, name in words.items() if OF_ONE_CPU.fullmatch(word)}
    if path.name == "serial.py":
        found = {name for name in found if "msr" not in name.lower()}  # the modem status register
    assert not found


def test_there_is_something_of_each_kind() -> None:
    kinds = {frozenset(owned_by(module)) for module in MODULES}
    assert kinds >= {
        frozenset(),
        frozenset({"x86_64"}),
        frozenset({"kvm"}),
        frozenset({"whp", "x86_64"}),
    }
    assert owned_by("vmm_arch.abi.linux_x86_64") == {"x86_64"}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_knows_no_cpu_and_no_hypervisor_but_its_own(module: str) -> None:
    foreign = {name: owned_by(name) - owned_by(module) for name in IMPORTS[module]}
    assert not {name: of for name, of in foreign.items() if of}


@pytest.mark.parametrize("module", MODULES)
def test_nobody_imports_from_above(module: str) -> None:
    assert not [name for name in IMPORTS[module] if level(name) > level(module)]


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module: [n for n in names if n in MODULES] for module, names in IMPORTS.items()}
    in_order(graph)


@pytest.mark.parametrize("module", [name for name in MODULES if room(name) != "vmm_arch"])
def test_a_room_knows_its_parents_but_none_inside_it(module: str) -> None:
    assert not [name for name in IMPORTS[module] if room(name).startswith(f"{room(module)}.")]


def test_no_rooms_beside_each_other_import_each_other() -> None:
    graph: dict[str, set[str]] = {}
    for module, names in IMPORTS.items():
        for name in names:
            ours, theirs = room(module), room(name)
            nested = f"{ours}.".startswith(f"{theirs}.") or f"{theirs}.".startswith(f"{ours}.")
            if not nested:
                graph.setdefault(ours, set()).add(theirs)
    in_order(graph)


def in_order(graph: Mapping[str, object]) -> None:
    try:
        TopologicalSorter(graph).prepare()  # type: ignore[arg-type]
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))
