"""What ``diff`` says of macros with arguments: by what they mean, not by how they are written."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
from macro_mutations import mutate
from vmm_arch_gen.abi.expression_text import parse, spell
from vmm_arch_gen.abi.integers import IntType
from vmm_arch_gen.abi.layout import Layouts
from vmm_arch_gen.abi.model import Abi, MacroFunction
from vmm_arch_gen.abi.reader import read_abi_file
from vmm_arch_gen.compare.compare import compare
from vmm_arch_gen.compare.macros import takes
from vmm_arch_gen.compare.model import Kind
from vmm_arch_gen.compare.report import as_text
from vmm_arch_gen.project import Project
from vmm_arch_gen.targets import TargetTable

import headers


def only(abi: Abi, macro: MacroFunction) -> Abi:
    """An ABI with nothing but one macro."""
    return replace(
        abi, constants=(), strings=(), ioctls=(), enums={}, records={}, layouts={}, typedefs={},
        functions=(), omissions=(), macros=(macro,),
    )  # fmt: skip


def test_another_value_is_a_breaking_change(paths: Project) -> None:
    """Seeded mutations of every macro."""
    tried = 0
    for name in ("kvm_aarch64", "kvm_x86_64", "devices_x86_64"):
        abi = read_abi_file(paths.abi / f"{name}.abi")
        layouts = Layouts.of_abi(abi)
        for macro in abi.macros:
            for seed in range(4):
                chance = random.Random(f"{macro.name} {name} {seed}")
                value = mutate(macro, chance, layouts)
                if value is None:
                    continue
                changed = replace(macro, value=value)
                (change,) = compare(only(abi, macro), only(abi, changed)).changes
                expected = Kind.CHANGED if takes(macro) == takes(changed) else Kind.RETYPED
                assert (change.kind, change.name) == (expected, macro.name), spell(value)
                assert change.kind.breaking
                tried += 1
    assert tried >= 500


@pytest.mark.parametrize("name", ["kvm_aarch64", "kvm_x86_64", "devices_x86_64"])
def test_another_spelling_is_no_change(name: str, paths: Project) -> None:
    """Parentheses, radix, sums of numbers: at least five hundred, with a seed."""
    abi = read_abi_file(paths.abi / f"{name}.abi")
    size_type = IntType(abi.model.pointer, signed=False)
    for macro in abi.macros:
        for seed in range(6):
            text = respelled(spell(macro.value), random.Random(f"{macro.name} {seed}"))
            after = replace(macro, value=parse(text, macro.parameters, size_type))
            assert not compare(only(abi, macro), only(abi, after)).changes, text


def respelled(text: str, chance: random.Random) -> str:
    """C text with another spelling of the same."""

    def other(match: re.Match[str]) -> str:
        number = int(match[1], 0)
        ways = [match[0], f"({match[0]})", f"(({match[0]}))"]
        if not match[2] and number < 1 << 30:
            ways += [hex(number), str(number), f"({number + 1} - 1)", f"({number} | {number})"]
        return chance.choice(ways)

    text = re.sub(r"\b(0x[0-9a-f]+|\d+)(U?L*)\b", other, text)
    return chance.choice((text, f"({text})", f"(({text}))"))


PROLOGUE = "typedef unsigned long long u64; typedef unsigned int u32; struct s { u32 a, b[4]; };\n"


@pytest.mark.parametrize(
    ("old", "new", "report"),
    [
        ("M(x) ((x) & 0xff)", "M(x) (0xFFu & (x))", ""),
        ("M(x) ((x) << 4 | 3)", "THREE 3\n#define M(x) (((x) << (2 + 2)) | THREE)", ""),
        ("M(x) ((u64)(x) + 1)", "N(x) (1 + (x))\n#define M(x) N(x)", "added: 1 macro\n+ N  (x) -> u64 = x + 1\n"),
        ("M(x) ((x) & 0xff)", "M(x) ((x) & 0xfff)", """\
changed: 1 macro
! M  (x) -> u64 = x & 0xff -> x & 0xfff
"""),
        ("M(x) (((x) & 0xf) << 4)", "M(x) (((x) << 4) & 0xf0)", """\
declared otherwise, with the same meaning: 1 macro
= M  (x) -> u64 = (x & 0xf) << 4 -> (x << 4) & 0xf0
"""),
        ("M(x) ((x) & 0xff)", "M(value) ((value) & 0xff)", """\
declared otherwise, with the same meaning: 1 macro
= M  (x) -> u64 = x & 0xff -> (value) -> u64 = value & 0xff
"""),
        ("M(x) ((x) & 0xff)", "M(x) ((u32)(x) & 0xff)", """\
retyped: 1 macro
! M  (x) -> u64 = x & 0xff -> (x) -> u32 = (u32)x & 0xff
"""),
        ("M(x) ((x) & 0xff)", "M(x, y) ((x) & 0xff | (y) << 8)", """\
retyped: 1 macro
! M  (x) -> u64 = x & 0xff -> (x, y) -> u64 = (x & 0xff) | (y << 8)
"""),
        ("M(t) (sizeof(t) << 4)", "M(t) ((t) << 4)", """\
retyped: 1 macro
! M  (t) -> u64 = sizeof(t) << 4 -> t << 4
"""),
        ("M(x) ((x) & 0xff)", "M(x) ((x)++)", """\
removed: 1 macro
- M  (x) -> u64 = x & 0xff (now left out: it has a side effect: ++)
"""),
        ("KVM_MAKE_ID(x) ((x) << 9)", "KVM_MAKE_REG_ID(y) ((y) << 9)", """\
renamed: 1 macro
! KVM_MAKE_ID -> KVM_MAKE_REG_ID  (x) -> u64 = x << 9 -> (y) -> u64 = y << 9
"""),
        ("M(x) ((x) == 3 ? 1 : (x) == 0x12345 ? 7 : 0)", "M(x) ((x) == 3 ? 1 : (x) == 0x12345 ? 8 : 0)", """\
changed: 1 macro
! M
      (x) -> s32 = x == 3 ? 1 : (x == 0x12345 ? 7 : 0)
      -> (x) -> s32 = x == 3 ? 1 : (x == 0x12345 ? 8 : 0)
"""),
    ],
)  # fmt: skip
def test_what_is_said_of_a_header(
    old: str, new: str, report: str, table: TargetTable, tmp_path: Path
) -> None:
    kvm = table.targets["kvm_x86_64"]
    texts = (f"{PROLOGUE}#define {text}\n" for text in (old, new))
    before, after = (headers.prove(text, kvm, table, tmp_path) for text in texts)
    comparison = compare(before, after)
    changes = tuple(change for change in comparison.changes if change.what == "macro")
    lines = [line for line, _ in as_text([replace(comparison, changes=changes)])]
    groups = "\n".join(line for line in lines if not line.startswith("  from")).partition("\n\n")[2]
    assert groups + "\n" * bool(report) == report
    assert all(len(line) <= 80 for line in lines)
