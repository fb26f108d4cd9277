"""Facts of older headers: what a backend uses and they lack is said, and which headers have it."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Collection
from pathlib import Path

import pytest
from vmm_arch_gen.abi.layout import Layouts
from vmm_arch_gen.abi.model import VerifiedAbi
from vmm_arch_gen.abi.reader import read_abi_file
from vmm_arch_gen.abi.writer import write_abi
from vmm_arch_gen.diagnostics import InputError
from vmm_arch_gen.generate.generate import Inputs, generate
from vmm_arch_gen.generate.outdated import Used
from vmm_arch_gen.project import project
from vmm_arch_gen.targets import TargetTable

PATHS = project()


def without(abi: VerifiedAbi, names: Collection[str]) -> VerifiedAbi:
    """The facts as headers have them that do not know some constants, ioctls, records, members."""
    records = {
        key: dataclasses.replace(
            record,
            members=tuple(m for m in record.members if f"{key}.{m.name}" not in names),
        )
        for key, record in abi.records.items()
        if key not in names
    }
    layouts = Layouts(abi.model, records, abi.typedefs, abi.enums)
    return VerifiedAbi(
        dataclasses.replace(
            abi,
            origin="Linux 5.0.0 headers",
            constants=tuple(one for one in abi.constants if one.name not in names),
            enums={
                key: dataclasses.replace(
                    enum, enumerators=tuple(one for one in enum.enumerators if one[0] not in names)
                )
                for key, enum in abi.enums.items()
            },
            ioctls=tuple(one for one in abi.ioctls if one.name not in names),
            records=records,
            layouts={key: layouts.record(key) for key in records},
        )
    )


def said(target: str, names: Collection[str], table: TargetTable, folder: Path) -> list[str]:
    """What generating from such facts is answered with, the target's own file being the first word."""
    abi = without(read_abi_file(PATHS.abi / f"{target}.abi"), names)
    (folder / f"{target}.abi").write_text(write_abi(abi))
    inputs = Inputs(PATHS.templates, folder, PATHS.abi, PATHS.values_file, [])
    try:
        generate(inputs, [table.targets[target]], lambda name: None)
    except InputError as error:
        return [str(problem).replace(f"{folder}/", "") for problem in error.problems]
    return []


@pytest.mark.parametrize(
    ("target", "names", "header"),
    [
        ("kvm_x86_64", ["KVM_EXIT_X86_RDMSR"], "linux/kvm.h"),
        ("kvm_x86_64", ["KVM_SET_XSAVE"], "linux/kvm.h"),
        ("kvm_x86_64", ["struct kvm_dirty_log"], "linux/kvm.h"),
        ("kvm_x86_64", ["struct kvm_run.immediate_exit"], "linux/kvm.h"),
        ("whp_x86_64", ["WHvX64RegisterRip"], "winhvplatformdefs.h"),
    ],
)
def test_what_is_lacking_is_named_with_its_header(
    target: str, names: list[str], header: str, table: TargetTable, tmp_path: Path
) -> None:
    (message,) = said(target, names, table, tmp_path)
    lacking = ", ".join(names).replace("struct ", "")
    expected = f"{target}.abi: lacks {lacking}, which vmm_arch uses: these are facts of Linux 5.0.0"
    assert message.startswith(expected)
    assert f" headers; extract from newer headers: {header} of " in message


def test_all_of_it_is_said_at_once(table: TargetTable, tmp_path: Path) -> None:
    names = ["KVM_EXIT_X86_RDMSR", "KVM_SET_XSAVE", "struct kvm_lapic_state"]
    first, second = said("kvm_x86_64", names, table, tmp_path)
    assert "lacks KVM_EXIT_X86_RDMSR, KVM_SET_XSAVE, which" in first
    assert "lacks kvm_lapic_state, which" in second


def test_what_nothing_uses_may_be_lacking(table: TargetTable, tmp_path: Path) -> None:
    unused = ["KVM_CAP_S390_GMAP", "struct kvm_run.s390_reset_flags"]
    assert said("kvm_x86_64", unused, table, tmp_path) == []


def test_what_only_newer_headers_have_may_be_left_out(table: TargetTable, tmp_path: Path) -> None:
    """Where the template asks for it: {% if … in facts %}."""
    newer = ["KVM_EXIT_TDX", "KVM_EXIT_SNP_REQ_CERTS"]
    assert said("kvm_x86_64", newer, table, tmp_path) == []


def test_what_modules_use_is_seen_in_their_texts() -> None:
    text = (
        "from vmm_arch.abi.x import a\nfrom vmm_arch.abi import x as m\nfrom y import b\n"
        "a.c\na(d=1)\nb(a, 'e')\nm.f\ng\n"
    )
    assert Used.by([text], "x") == Used(frozenset("afg"), frozenset("cdef"))


@pytest.mark.parametrize("name", ["KVM_EXIT_INTR", "KVM_EXIT_X86_RDMSR"])
def test_in_place_of_the_packages_own_facts_older_ones_are_suspected(
    name: str, table: TargetTable, tmp_path: Path
) -> None:
    """Nothing is left that tells where a name comes from. It may be imported or reached by `abi.`"""
    shutil.copytree(PATHS.abi, tmp_path / "abi")
    file = tmp_path / "abi/kvm_x86_64.abi"
    file.write_text(write_abi(without(read_abi_file(file), [name])))
    inputs = Inputs(PATHS.templates, tmp_path / "abi", tmp_path / "abi", PATHS.values_file, [])
    with pytest.raises(InputError) as caught:
        generate(inputs, [table.targets["kvm_x86_64"]], lambda name: None)
    assert (
        "if newer headers than those of Linux 5.0.0 headers have it, extract from them; it is line"
        in str(caught.value.problems[0])
    )
