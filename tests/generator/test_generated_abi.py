"""The generated ABI modules: the layouts that Python gives them, on every Python and as written."""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import abi_check
import pytest
from interpreters import SUITES, Unavailable, interpreter
from requirements import require
from vmm_arch_gen.abi.layout import Layouts
from vmm_arch_gen.abi.model import Member, VerifiedAbi
from vmm_arch_gen.abi.reader import read_abi_file
from vmm_arch_gen.abi.types import NOT_INTEGERS, Scalar
from vmm_arch_gen.generate.abi_module import abi_module
from vmm_arch_gen.generate.formatting import format_source
from vmm_arch_gen.generate.names import member_name, python_name
from vmm_arch_gen.generate.render import Templates
from vmm_arch_gen.generate.values import load_values
from vmm_arch_gen.project import Project
from vmm_arch_gen.targets import Target, TargetTable


def signed(member: Member, layouts: Layouts) -> bool | None:
    """Whether a member is read as a signed int; None if it is read as something else."""
    kind = layouts.resolve(member.type)
    if not isinstance(kind, Scalar):
        return None
    others = ("char", "_Bool", *NOT_INTEGERS, "__int128", "unsigned __int128")
    return None if member.bits is None and kind.name in others else layouts.signed(kind)


def facts(abi: VerifiedAbi) -> tuple[dict[str, int], dict[str, tuple[int, int, abi_check.Members]]]:
    """What :mod:`abi_check` compares with a module."""
    integers = {c.name: c.value for c in abi.constants} | {i.name: i.value for i in abi.ioctls}
    for enum in abi.enums.values():
        integers |= dict(enum.enumerators)
    layouts = Layouts.of_abi(abi)
    records = {}
    for key, record in abi.records.items():
        layout = abi.layouts[key]
        members: abi_check.Members = [
            (
                member_name(member),
                offset,
                member.bits,
                layouts.of(member.type)[0] if member.bits is None else None,
                signed(member, layouts),
            )
            for member, offset in zip(record.members, layout.offsets, strict=True)
            if member_name(member)
        ]
        records[python_name(key)] = (layout.size, layout.align, members)
    return integers, records


def read(target: str, paths: Project) -> VerifiedAbi:
    return read_abi_file(paths.abi / f"{target}.abi")


def load(target: str) -> Any:
    return importlib.import_module(f"vmm_arch.abi.{target}")


def test_every_name_and_layout_is_the_proven_one(target: Target, paths: Project) -> None:
    integers, records = facts(read(target.name, paths))
    compared = abi_check.compare(load(target.name), integers, records)
    assert compared == len(integers) + sum(1 + len(members) for *_, members in records.values())
    assert compared, "nothing was read"


@pytest.mark.parametrize("version", SUITES)
def test_other_pythons_give_the_same_layouts(
    version: str, table: TargetTable, paths: Project, checkout: Path
) -> None:
    try:
        python = interpreter(version)
    except Unavailable as reason:
        require(False, str(reason))
    everything = {f"vmm_arch.abi.{name}": facts(read(name, paths)) for name in table.targets}
    done = subprocess.run(
        [python, "-W", "error", checkout / "tests/support/abi_check.py"],
        input=json.dumps(everything),
        env={"PYTHONPATH": str(checkout / "generated"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(everything)


def test_assigning_a_field_that_does_not_exist_is_an_error(target: Target) -> None:
    module = load(target.name)
    kinds = [kind for kind in vars(module).values() if isinstance(kind, type)]
    records = (kind for kind in kinds if issubclass(kind, ctypes.Structure))
    for record in [kind for kind in records if getattr(kind, "_fields_", None)][:1]:
        with pytest.raises(AttributeError):
            record().rxx = 1


def test_black_has_nothing_to_change(sample_target: Target, paths: Project) -> None:
    """It would take twice as long: what it changes it looks at again."""
    values = load_values(paths.values_file)
    module = abi_module(read(sample_target.name, paths), values)
    text = Templates(paths.templates).text("vmm_arch/abi/target.py.j2", "# x\n", module=module)
    assert format_source(text) == text


def test_prototypes_set_the_types_of_a_library() -> None:
    from vmm_arch.abi import declare

    libc = ctypes.CDLL(None)
    prototypes = {"abs": (ctypes.c_int32, [ctypes.c_int32]), "WHvNoSuch": (None, [])}
    assert declare(libc, prototypes) == {"WHvNoSuch"}
    assert libc.abs(-3) == 3
    with pytest.raises(ctypes.ArgumentError):
        libc.abs("three")


def test_whp_prototypes_are_grouped_by_library() -> None:
    whp = load("whp_x86_64")
    assert set(whp.PROTOTYPES) == {"winhvplatform.h", "winhvemulation.h"}
    result, arguments = whp.PROTOTYPES["winhvplatform.h"]["WHvRunVirtualProcessor"]
    names = [result.__name__, *(argument.__name__ for argument in arguments)]
    assert names == ["c_int", "c_void_p", "c_uint", "c_void_p", "c_uint"]


def test_importing_needs_nothing_but_the_standard_library(
    target: Target, checkout: Path, tmp_path: Path
) -> None:
    """In an interpreter without site-packages, in a folder of its own."""
    python = os.path.realpath(sys.executable)
    code = f"import sys; sys.path.insert(0, {str(checkout / 'generated')!r});"
    code += f"import vmm_arch.abi.{target.name}"
    subprocess.run([python, "-I", "-S", "-c", code], check=True, cwd=tmp_path)
