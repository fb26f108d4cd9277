"""Layouts of records nobody has thought of: ours, the compiler's and those of ctypes agree."""

from __future__ import annotations

import dataclasses
import re
import tempfile
from ctypes import c_char, c_int32, c_int64, c_uint8
from itertools import count
from pathlib import Path
from typing import Any

import abi_check
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from test_generated_abi import facts
from vmm_arch_gen.abi.model import VerifiedAbi
from vmm_arch_gen.abi.reader import read_abi
from vmm_arch_gen.abi.writer import write_abi
from vmm_arch_gen.diagnostics import InputError
from vmm_arch_gen.generate.abi_module import abi_module
from vmm_arch_gen.generate.generate import render_abi_module
from vmm_arch_gen.project import project
from vmm_arch_gen.targets import Target, TargetTable

import headers

INTEGERS = [
    ("char", 8),
    ("signed char", 8),
    ("unsigned char", 8),
    ("short", 16),
    ("unsigned short", 16),
    ("int", 32),
    ("unsigned int", 32),
    ("long long", 64),
    ("unsigned long long", 64),
    ("long", 32),  # 64 where it is longer, which a bit-field need not use
    ("_Bool", 1),
]
ARRAYS = [
    "void *",
    "float",
    "double",
    "enum colour",
    "struct inner",
    "unsigned __int128",
    "long double",
]
OTHERS = [
    *ARRAYS,
    "low_t",
    "wide_t",
]  # compilers refuse an array of it: its alignment exceeds its size
PROLOGUE = """
enum colour { RED, GREEN = 0x80000000, BLUE };
struct inner { unsigned char a; unsigned short b; unsigned long long c; };
typedef unsigned long long wide_t __attribute__((aligned(16)));
typedef unsigned long long low_t __attribute__((aligned(2)));
"""
PACKS = [
    "",
    "1",
    "2",
    "4",
    "8",
    "16",
    "push",
    "push, 1",
    "push, a",
    "push, b, 2",
    "pop",
    "pop, a",
    "pop, b",
    "pop, 4",
]
ON_MEMBERS = ["", "", "", "", "aligned(8)", "aligned(2)", "packed", "packed, aligned(4)"]


def attribute(text: str) -> str:
    return f" __attribute__(({text}))" if text else ""


@st.composite
def members(draw: st.DrawFn, depth: int = 0) -> str:
    """The members of a record, in C."""
    lines: list[str] = []
    for _ in range(draw(st.integers(1, 5))):
        name = f"m{draw(st.integers(0, 10**9))}_{len(lines)}_{depth}"
        match draw(
            st.sampled_from(
                ["plain", "plain", "array", "bits", "bits", "bits", "filler", "end", "nested"]
            )
        ):
            case "plain":
                kind = draw(st.sampled_from([name for name, _ in INTEGERS] + OTHERS))
                lines.append(f"{kind} {name}{attribute(draw(st.sampled_from(ON_MEMBERS)))};")
            case "array":
                kind = draw(st.sampled_from([name for name, _ in INTEGERS] + ARRAYS))
                lines.append(f"{kind} {name}[{draw(st.integers(1, 3))}];")
            case "bits":
                kind, width = draw(st.sampled_from(INTEGERS))
                attributes = attribute(draw(st.sampled_from(ON_MEMBERS)))
                lines.append(f"{kind} {name} : {draw(st.integers(1, width))}{attributes};")
            case "filler":
                kind, width = draw(st.sampled_from(INTEGERS[1:9]))
                lines.append(f"{kind} : {draw(st.integers(1, width))};")
            case "end":
                lines.append(f"{draw(st.sampled_from(INTEGERS[1:9]))[0]} : 0;")
            case "nested" if depth < 2:
                inner = draw(members(depth + 1))
                kind = draw(st.sampled_from(["struct", "union"]))
                lines.append(f"{kind} {{ {inner} }} {draw(st.sampled_from(['', name]))};")
    return " ".join(lines) or f"int nothing_{draw(st.integers(0, 10**9))};"


@st.composite
def header(draw: st.DrawFn) -> str:
    """A header with several records."""
    text = PROLOGUE
    for number in range(draw(st.integers(1, 12))):
        if draw(st.booleans()):
            text += f"#pragma pack({draw(st.sampled_from(PACKS))})\n"
        kind = draw(st.sampled_from(["struct", "struct", "union"]))
        attributes = attribute(draw(st.sampled_from(["", "", "", "aligned(32)", "packed"])))
        text += f"{kind} r{number} {{ {draw(members())} }}{attributes};\n"
    numbers = count()  # a name that is in a record twice would be an error in the header
    return re.sub(r"\bm\d+_\d+_\d+\b", lambda _: f"m{next(numbers)}", text)


@pytest.mark.parametrize(
    "text",
    [
        "struct __a { int x; }; struct b { struct __a y[3]; struct __a z; };",
        "typedef struct opaque opaque; opaque *open(void);",
        "#define print 3\nenum { id = 4 };",
        "struct s { unsigned char u8; unsigned char after[2]; };",
        "struct s { int char_; union { char boolean; _Bool after; }; };",
        "struct s { unsigned u32; unsigned a : 3, : 4, b : 7; int u64; };",
        "typedef long numbers[3]; struct c { numbers n; char *p __attribute__((aligned(64))); };",
        "#include <stdbool.h>\nstruct d { bool b; };",
        '#define LATIN "caf\u00e9"',
    ],
)
def test_modules_of_odd_headers_import(text: str, table: TargetTable, tmp_path: Path) -> None:
    abi = headers.prove(text, table.targets["kvm_x86_64"], table, tmp_path)
    assert read_abi(write_abi(abi), "x", abi.target) == abi
    exec(render_abi_module(project().templates, abi), {"__name__": "odd"})


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("typedef unsigned char u8; struct s { u8 a[2]; };", {"u8": c_uint8, "s.a": 2}),
        ("typedef int c_int32; struct c_of { c_int32 a; }; typedef struct c_of c_x;", {"c_int32": c_int32, "c_of.a": 4, "c_x.a": 4}),
        ("#define of 3\n#define LittleStruct 4\nstruct s { struct { int a; } b; };", {"of": 3, "LittleStruct": 4, "s.b": 4}),
        ("#define Array 2\n#define c_int8 5\nstruct s { signed char a[2][2]; };", {"Array": 2, "c_int8": 5, "s.a": 4}),
        ("struct Array { int a; }; struct bytes { char b[2]; struct Array x[2]; };", {"Array.a": 4, "bytes_.x": 8}),
        ("#define class 1\nenum e { None = 3, True };", {"class_": 1, "None_": 3, "True_": 4}),
        ("struct s { int None, class, self, __init__; };", {"s.None_": 4, "s.class_": 4, "s.self": 4, "s.__init___": 4}),
        ("typedef long s_io; struct s { struct { int a; } io; };", {"s_io": c_int64, "s_io_.a": 4}),
        ("struct a_b { char x; }; struct a { struct { int y; } b; };", {"a_b.x": 1, "a_b_.y": 4}),
        ("struct s { int _union; union { int a; }; };", {"s._union": 4, "s._union_": 4, "s.a": 4}),
        ("struct s { int _fields_; int _order_; };", {"s._fields__": 4, "s._order__": 4}),
        ("struct s { char __reserved__[4]; unsigned a : 3; int __pad__; char __own[2]; };", {"s.__reserved__": 4, "s.__pad__": 4, "s.__own": 2}),
        ("struct s { int of, any_of, u8; struct { char a; } b; unsigned char c; };", {"s.of": 4, "s.b": 1, "s.c": 1}),
        ("struct PROTOTYPES { int a; }; int f(struct PROTOTYPES *a);", {"PROTOTYPES_.a": 4}),
        ("#define annotations 1\ntypedef char bytes;", {"annotations_": 1, "bytes_": c_char}),
        ("typedef void (*CFUNCTYPE)(int);", {"CFUNCTYPE": None}),
        ("enum { s = 7 }; struct s { int a; };", {"s": 7, "s_.a": 4}),
    ],
)  # fmt: skip
def test_names_that_python_or_the_module_has_for_itself(
    text: str, names: dict[str, Any], table: TargetTable, tmp_path: Path
) -> None:
    """Names are C's; a module imports under another name what would be in their way."""
    abi = headers.prove(text, table.targets["kvm_x86_64"], table, tmp_path)
    source = render_abi_module(project().templates, abi)
    module: dict[str, Any] = {"__name__": "names"}
    exec(source, module)
    for name, expected in names.items():
        kind, _, member = name.partition(".")
        if member:
            assert getattr(module[kind], member).size == expected, source
            repr(module[kind]())
        elif expected is not None:
            assert module[name] == expected, source


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "#define quotient(a) ((int)(a) / 3)",
            "quotient: is a name that the generated module needs for itself",
        ),
    ],
)
def test_what_python_cannot_say_is_refused(
    text: str, message: str, table: TargetTable, tmp_path: Path
) -> None:
    abi = headers.prove(text, table.targets["kvm_x86_64"], table, tmp_path)
    with pytest.raises(InputError, match=message):
        abi_module(abi)


def test_a_big_endian_target_gets_big_endian_records(table: TargetTable, tmp_path: Path) -> None:
    abi = headers.prove("struct s { int a; };", table.targets["kvm_x86_64"], table, tmp_path)
    model = dataclasses.replace(abi.model, byte_order="big")
    source = render_abi_module(
        project().templates, VerifiedAbi(dataclasses.replace(abi, model=model))
    )
    module: dict[str, Any] = {"__name__": "big"}
    exec(source, module)
    assert bytes(module["s"](a=1)) == b"\0\0\0\1"


@settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.generate],  # to shrink a failure would take many compilations
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(text=header())
def test_random_records(text: str, compiler_target: Target, table: TargetTable) -> None:
    with tempfile.TemporaryDirectory() as folder:
        abi = headers.prove(text, compiler_target, table, Path(folder))
    module: dict[str, Any] = {"__name__": "random_records"}
    source = render_abi_module(project().templates, abi)
    exec(compile(source, "random_records", "exec"), module)
    abi_check.compare(type("Module", (), module), *facts(abi))
