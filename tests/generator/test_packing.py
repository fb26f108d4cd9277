"""``#pragma pack``, and bit-fields without width where records are packed: as every compiler does it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from vmm_arch_gen.abi.writer import write_abi
from vmm_arch_gen.targets import TargetTable

import headers


def packs(text: str, table: TargetTable, folder: Path, target: str = "kvm_x86_64") -> list[str]:
    """What packs each record, as proven by the compiler."""
    lines = write_abi(headers.prove(text, table.targets[target], table, folder)).splitlines()
    found = [
        re.match(r"(?:typedef )?(?:struct|union) (\w+) is .* aligned \d+(.*) in ", line)
        for line in lines
    ]
    return [f"{match[1]}{match[2]}" for match in found if match]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("#pragma pack(2)\nstruct a { char x; int y; };\n#pragma pack()\nstruct b { char x; int y; };", ["a pack(2)", "b"]),
        ("#pragma pack(push, 1)\nstruct a { char x; int y; };\n#pragma pack(pop)\nstruct b { char x; int y; };", ["a pack(1)", "b"]),
        ("#pragma pack(4)\n#pragma pack(push)\n#pragma pack(1)\nstruct a { long x; };\n#pragma pack(pop)\nstruct b { long x; };", ["a pack(1)", "b pack(4)"]),
        (
            "#pragma pack(push, outer, 8)\n#pragma pack(push, inner, 2)\n#pragma pack(push, 1)\nstruct a { long x; };\n"
            "#pragma pack(pop, inner)\nstruct b { long x; };\n#pragma pack(pop)\nstruct c { long x; };",
            ["a pack(1)", "b pack(8)", "c"],
        ),
        ("#pragma pack(pop)\n#pragma pack(pop, absent)\nstruct a { long x; };", ["a"]),
        ("#pragma pack(push, 2)\n#pragma pack(pop, 4)\nstruct a { long x; };", ["a pack(4)"]),
        ("#pragma pack(2)\n#pragma pack(0)\nstruct a { long x; };", ["a"]),
        ("#define FEW 2\n#define NAMED FEW\n#pragma pack(push, NAMED)\nstruct a { long x; };", ["a pack(2)"]),
        ('#define BEGIN _Pragma("pack(push, 1)")\n#define END _Pragma("pack(pop)")\nBEGIN struct a { char x; int y; }; END struct b { char x; int y; };', ["a pack(1)", "b"]),
        ("#pragma pack(1)\ntypedef struct { char x; struct { int y; } z; union { long v; }; } a;", ["a pack(1)"]),
        ("#pragma pack(1)\nstruct __attribute__((aligned(4))) a { char x; int y; }\n#pragma pack()\n;", ["a pack(1) aligned(4)"]),
        ("#pragma pack(1)\nenum e { A };\nstruct b *p;\nstruct\nb\n{ enum e x; struct b *y; };", ["b pack(1)"]),
        ("#pragma GCC diagnostic push\n#pragma region x\n#pragma warning(push)\nstruct a { long x; };", ["a"]),
    ],
)  # fmt: skip
def test_what_packs_each_record(
    text: str, expected: list[str], table: TargetTable, tmp_path: Path
) -> None:
    assert packs(text + "\n", table, tmp_path) == expected


@pytest.mark.parametrize("target", ["kvm_x86_64", "kvm_aarch64", "kvm_s390x", "whp_x86_64"])
@pytest.mark.parametrize(
    "record",
    [
        "struct a { char x; unsigned int : 0; } __attribute__((packed));",
        "union a { char x; unsigned int : 0; } __attribute__((packed));",
        "union a { char x; unsigned int : 0; };",
        "union a { char x; long long : 0; short m : 12; };",
        "union a { unsigned int : 0; };",
        "#pragma pack(1)\nstruct a { char x : 3; unsigned int : 0; short y : 9; int z; };",
        "#pragma pack(2)\nstruct a { long w : 11; _Bool : 1; int x : 8; unsigned int : 0; _Bool y : 1; };",
        "#pragma pack(2)\nstruct a { int x : 7; long long y : 40 __attribute__((aligned(8))); char z; };",
        "typedef unsigned long long low __attribute__((aligned(2))); struct a { char x; low y[2]; low z : 3; };",
    ],
)  # fmt: skip
def test_layouts_are_those_of_the_compiler(
    record: str, target: str, table: TargetTable, tmp_path: Path
) -> None:
    headers.prove(record + "\n", table.targets[target], table, tmp_path)
