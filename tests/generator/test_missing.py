"""A header that needs another one first is told which; one that includes itself is told so."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from vmm_arch_gen.diagnostics import InputError, Problem
from vmm_arch_gen.extract.extract import extract
from vmm_arch_gen.targets import TargetTable

import headers

OTHERS = {
    "colours.h": "enum colour { RED, GREEN };\n#define FEW 3\n",
    "sys/small.h": "#include <bits/small.h>\n",
    "bits/small.h": "typedef unsigned char small_t;\nstruct tiny { int x; };\n",
    "a/b/c/d/deep.h": "typedef int deep_t;\n",
    "linux/ioctl.h": "#include <asm/ioctl.h>\n",
    "asm/ioctl.h": "#include <asm-generic/ioctl.h>\n",
    "asm-generic/ioctl.h": "#define _IOW(type, nr, size) (((type) << 8) | (nr))\n",
}


def problems(text: str, table: TargetTable, folder: Path) -> list[Problem]:
    for name, content in OTHERS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    with pytest.raises(InputError) as caught:
        headers.read(text, table.targets["kvm_x86_64"], table, folder)
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("text", "where", "what", "remedy"),
    [
        ("struct s {\n  small_t a;\n  small_t b;\n};", "test.h:2", "small_t is used as a type, but nothing before declares it", "sys/small.h declares small_t: include it before test.h"),
        ("typedef struct { const small_t *a; } s;", "test.h:1", "small_t is used as a type, but nothing before declares it", "sys/small.h declares small_t: include it before test.h"),
        ("struct s { struct tiny a; };", "test.h:1", "struct tiny is not defined", "sys/small.h declares tiny: include it before test.h"),
        ("struct s { int a[FEW]; };", "test.h:1", "names FEW, which the headers do not define", "colours.h declares FEW: include it before test.h"),
        ("struct s { int a[GREEN]; };", "test.h:1", "names GREEN, which the headers do not define", "colours.h declares GREEN: include it before test.h"),
        ("struct s { deep_t a; };", "test.h:1", "deep_t is used as a type, but nothing before declares it", "give the target a shim for what cannot be read, or correct the header"),
        ("#define B _IOW('x', 2, int)\n#define A _IOW('x', 1, int)", "test.h:1", "the ioctl numbers A, B cannot be computed: names _IOW, which the headers do not define", "linux/ioctl.h declares _IOW: include it before test.h"),
        ('#include "test.h"', "test.h:1", "this #include never ends: the header includes itself, directly or through others", "give it an include guard: #ifndef, #define and #endif, or #pragma once"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named_with_the_header_that_has_it(
    text: str, where: str, what: str, remedy: str, table: TargetTable, tmp_path: Path
) -> None:
    (problem,) = problems(text + "\n", table, tmp_path)
    assert (problem.where, problem.what, problem.remedy) == (where, what, remedy)


def test_what_follows_from_something_refused_is_not_said_again(
    table: TargetTable, tmp_path: Path
) -> None:
    text = "struct a { small_t x; };\nstruct b { struct a x; };\ntypedef struct { small_t z; } c;\nunion d { c x; struct b y; };\n"
    (problem,) = problems(text, table, tmp_path)
    assert problem.where == "test.h:1"


def test_userfaultfd_wants_its_ioctl_macros_first(table: TargetTable) -> None:
    target = dataclasses.replace(table.targets["kvm_x86_64"], headers=("linux/userfaultfd.h",))
    from vmm_arch_gen.extract.toolchain import find_toolchain

    with pytest.raises(InputError) as caught:
        extract(target, find_toolchain(target, table.package))
    assert {problem.remedy for problem in caught.value.problems} == {
        f"linux/ioctl.h declares {name}: include it before linux/userfaultfd.h"
        for name in ("_IO", "_IOR", "_IOWR")
    }
