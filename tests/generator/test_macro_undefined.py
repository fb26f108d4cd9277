"""Where a macro with arguments has no value: the compiler warns of those calls, and of no other."""

from __future__ import annotations

import random
import re
import subprocess
from collections.abc import Iterator

import pytest
from vmm_arch_gen.abi.evaluate import function
from vmm_arch_gen.abi.expressions import Argument, uses
from vmm_arch_gen.abi.integers import Undefined
from vmm_arch_gen.abi.model import Abi, MacroFunction
from vmm_arch_gen.abi.reader import read_abi_file
from vmm_arch_gen.abi.samples import tuples
from vmm_arch_gen.extract.toolchain import Toolchain, find_toolchain
from vmm_arch_gen.project import Project
from vmm_arch_gen.targets import Target, TargetTable

WARNINGS = (
    "shift-count-overflow",
    "shift-count-negative",
    "shift-overflow",
    "shift-sign-overflow",
    "division-by-zero",
    "integer-overflow",
)
EACH = 16
"""Calls of each macro that have a value, and others."""


@pytest.mark.parametrize(
    "name", ["kvm_x86_64", "kvm_aarch64", "kvm_riscv64", "kvm_s390x", "sandbox_x86_64"]
)
def test_the_compiler_warns_of_what_is_undefined(
    name: str, table: TargetTable, paths: Project
) -> None:
    target = table.targets[name]
    abi: Abi = read_abi_file(paths.abi / f"{name}.abi")
    calls = [call for macro in abi.macros for call in some_calls(macro)]
    warned = warnings(target, find_toolchain(target, table.package), [text for text, _ in calls])
    assert warned == {text for text, defined in calls if not defined}


def some_calls(macro: MacroFunction) -> Iterator[tuple[str, bool]]:
    """Calls as C text, and whether they have a value."""
    if not all(isinstance(use, Argument) for use in uses(macro.value).values()):
        return
    if (
        macro.name == "__KERNEL_DIV_ROUND_CLOSEST"
    ):  # divides by a variable, of which nothing is said
        return
    compute = function(macro.value, macro.parameters)
    left = {True: EACH, False: EACH}
    for values in tuples(macro.value, len(macro.parameters), random.Random(f"{macro.name} again")):
        try:
            compute(values)
        except Undefined:
            defined = False
        else:
            defined = True
        if left[defined]:
            left[defined] -= 1
            yield f"{macro.name}({', '.join(f'{value:#x}ULL' for value in values)})", defined


def warnings(target: Target, toolchain: Toolchain, calls: list[str]) -> set[str]:
    """The calls that the compiler warns of."""
    includes = "".join(f"#include <{header}>\n" for header in target.headers)
    lines = (f"void f{at}(void) {{ (void)({call}); }}\n" for at, call in enumerate(calls))
    options = ["-std=gnu11", "-Wno-everything", *(f"-W{name}" for name in WARNINGS)]
    folders = [word for folder in toolchain.folders for word in ("-isystem", str(folder))]
    done = subprocess.run(
        [*toolchain.command, *options, "-Wsystem-headers", "-fsyntax-only", "-nostdinc",
         "-isystem", str(toolchain.own_headers), *folders, "-x", "c", "-"],
        input=f'{includes}#line 1 "calls"\n{"".join(lines)}',
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[:2000]
    return {calls[int(line) - 1] for line in re.findall(r"^calls:(\d+):", done.stderr, re.M)}
