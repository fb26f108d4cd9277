"""Where the names of a backend module come from: each has one home, below the backend."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from vmm_arch_gen.abi.reader import read_abi_file
from vmm_arch_gen.diagnostics import InputError
from vmm_arch_gen.generate.backend_module import render_backend_module
from vmm_arch_gen.generate.imports import import_statements
from vmm_arch_gen.generate.providers import STANDARD_LIBRARY, Provider
from vmm_arch_gen.project import Project


@pytest.fixture
def templates(tmp_path: Path, paths: Project) -> Path:
    folder = tmp_path / "templates"
    shutil.copytree(paths.templates, folder)
    return folder


def rendered(templates: Path, paths: Project, target: str) -> str:
    return render_backend_module(
        templates, read_abi_file(paths.abi / f"{target}.abi"), "# Marked"
    ).finished()


@pytest.mark.parametrize("target", ["kvm_x86_64", "whp_x86_64"])
@pytest.mark.parametrize("place", ["boundary.py", "x86_64/boundary.py", "devices/boundary.py"])
def test_a_name_that_two_modules_offer_is_refused(
    templates: Path, paths: Project, target: str, place: str
) -> None:
    """Whichever comes first in the alphabet: nobody would see that the meaning has changed."""
    file = templates / "vmm_arch" / place
    file.parent.mkdir(exist_ok=True)
    file.write_text("\nPAGE_SIZE = 1 << 14\n")
    with pytest.raises(InputError) as refused:
        rendered(templates, paths, target)
    assert f"PAGE_SIZE, which {target}.py uses, is also defined in" in str(refused.value)
    assert f"templates/vmm_arch/{place}:2" in str(refused.value)
    assert "templates/vmm_arch/memory.py:" in str(refused.value)


def test_a_name_that_is_handed_on_is_the_one_that_the_table_says(
    templates: Path, paths: Project
) -> None:
    (templates / "vmm_arch/boundary.py").write_text("class Region: ...\n")
    assert rendered(templates, paths, "kvm_x86_64") == rendered(
        paths.templates, paths, "kvm_x86_64"
    )


@pytest.mark.parametrize(
    "module",
    [
        "whp.py",
        "whp/tables.py",
        "x86_64/whp_tables.py",
        "whp/x86_64/tables.py",
        "aarch64/tables.py",
    ],
)
def test_another_hypervisor_or_cpu_is_never_searched(
    templates: Path, paths: Project, module: str
) -> None:
    """LAPIC is a table of WHP's; in KVM's operations it means nothing."""
    (templates / "cpu/aarch64").mkdir()  # there is such a CPU
    file = templates / "vmm_arch" / module
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as module_file:
        module_file.write("\nTHEIRS = ()\n")
    operations = templates / "hypervisors/kvm/x86_64/operations.py.j2"
    text = operations.read_text()
    assert "regs = Regs()" in text
    for name in ("THEIRS", "LAPIC"):
        operations.write_text(text.replace("regs = Regs()", f"regs = Regs(*{name})"))
        with pytest.raises(InputError, match=f"the name {name} is bound nowhere"):
            rendered(templates, paths, "kvm_x86_64")


def statements(*names: str, more: str = "") -> list[str]:
    offered = [
        *STANDARD_LIBRARY,
        Provider("vmm_arch.clock", {"time": "clock.py:1", "ticks": "clock.py:2"}),
        Provider("vmm_arch.bell", {"ring": "bell.py:1"}),
    ]
    exports = {"vmm_arch.bell": ["Bell"]}
    return import_statements(names, exports, offered, more, "paper.py").splitlines()


def test_the_standard_library_is_a_table() -> None:
    assert statements("struct", "Mapping", "mmap", "ring", "select_me", "antigravity") == [
        "import struct",
        "from collections.abc import Mapping",
        "from mmap import mmap",
        "",
        "from vmm_arch.bell import Bell, ring",
    ]


def test_the_standard_library_has_no_precedence() -> None:
    with pytest.raises(InputError) as refused:
        statements("time")
    assert str(refused.value).startswith(
        "the standard library: time, which paper.py uses, is also defined in clock.py:1; "
    )


def test_an_import_statement_says_what_is_meant() -> None:
    assert statements("time", "ticks", more="from vmm_arch.clock import time") == [
        "",
        "from vmm_arch.bell import Bell",
        "from vmm_arch.clock import ticks",
        "from vmm_arch.clock import time",
    ]


@pytest.mark.parametrize("hypervisor", ["kvm", "whp"])
def test_a_block_says_which_macro_it_came_from(checkout: Path, hypervisor: str) -> None:
    text = (checkout / f"generated/vmm_arch/{hypervisor}_x86_64.py").read_text()
    named = re.findall(r"^ *# From (templates/\S+), (\w+)\n(.*)\n", text, re.M)
    sections = ["records", "definitions", "calls", "host", "vcpu_state", "exits"]
    sections += ["vcpu_members", "vm_members"]
    if hypervisor == "whp":  # which is a library, whose calls need nothing around them
        sections.remove("calls")
    else:  # WHP has nothing of its own for resets
        sections.insert(sections.index("vcpu_members"), "resetting")
    assert [name for _, name, _ in named] == sections
    for file, name, line in named:
        template = (checkout / file).read_text()
        assert f"{{% macro {name}() %}}\n" in template
        assert line in template
