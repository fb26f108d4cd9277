"""Layouts of records nobody has thought of: ours, the compiler's and those of ctypes agree."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import abi_check
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from test_generated_abi import facts
from vmm_arch_gen.abi.model import VerifiedAbi
from vmm_arch_gen.diagnostics import InputError
from vmm_arch_gen.generate.abi_module import abi_module
from vmm_arch_gen.generate.generate import render_abi_module
from vmm_arch_gen.generate.names import python_name
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
ARRAYS = ["void *", "float", "double", "enum colour", "struct inner", "unsigned __int128"]
OTHERS = [*ARRAYS, "wide_t"]  # compilers refuse an array of it: its alignment exceeds its size
PROLOGUE = """
enum colour { RED, GREEN = 0x80000000, BLUE };
struct inner { unsigned char a; unsigned short b; unsigned long long c; };
typedef unsigned long long wide_t __attribute__((aligned(16)));
"""


@st.composite
def members(draw: st.DrawFn, depth: int = 0) -> str:
    """The members of a record, in C."""
    lines: list[str] = []
    for _ in range(draw(st.integers(1, 5))):
        name = f"m{draw(st.integers(0, 10**9))}_{len(lines)}_{depth}"
        match draw(
            st.sampled_from(["plain", "plain", "array", "bits", "bits", "filler", "nested"])
        ):
            case "plain":
                kind = draw(st.sampled_from([name for name, _ in INTEGERS] + OTHERS))
                aligned = draw(st.sampled_from(["", "", "", " __attribute__((aligned(8)))"]))
                lines.append(f"{kind} {name}{aligned};")
            case "array":
                kind = draw(st.sampled_from([name for name, _ in INTEGERS] + ARRAYS))
                lines.append(f"{kind} {name}[{draw(st.integers(1, 3))}];")
            case "bits":
                kind, width = draw(st.sampled_from(INTEGERS))
                lines.append(f"{kind} {name} : {draw(st.integers(1, width))};")
            case "filler":
                kind, width = draw(st.sampled_from(INTEGERS[1:9]))
                lines.append(f"{kind} : {draw(st.integers(1, width))};")
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
        kind = draw(st.sampled_from(["struct", "struct", "union"]))
        attribute = draw(
            st.sampled_from(["", "", "", "__attribute__((aligned(32)))", "__attribute__((packed))"])
        )
        text += f"{kind} r{number} {{ {draw(members())} }} {attribute};\n"
    return text


def without_what_ctypes_cannot_say(abi: VerifiedAbi) -> VerifiedAbi:
    """The facts without the records that are refused, as they must be rather than come out wrong."""
    while True:
        try:
            abi_module(abi)
        except InputError as error:
            assert all("ctypes cannot" in problem.what for problem in error.problems)
            refused = {
                problem.what.split()[1].split(".")[0].rstrip(":") for problem in error.problems
            }
            kept = {
                k: r for k, r in abi.records.items() if python_name(k).split("_")[0] not in refused
            }
            assert len(kept) < len(abi.records)
            abi = VerifiedAbi(dataclasses.replace(abi, records=kept))
        else:
            return abi


@settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.generate],  # to shrink a failure would take many compilations
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(text=header())
def test_random_records(text: str, target: Target, table: TargetTable) -> None:
    with tempfile.TemporaryDirectory() as folder:
        abi = headers.prove(text, target, table, Path(folder))
    module: dict[str, Any] = {"__name__": "random_records"}
    abi = without_what_ctypes_cannot_say(abi)
    source = render_abi_module(project().templates, abi)
    exec(compile(source, "random_records", "exec"), module)
    abi_check.compare(type("Module", (), module), *facts(abi))
