"""Macros with arguments as functions of the generated modules: C's values, on every Python integer."""

from __future__ import annotations

import ctypes
import importlib
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from macro_trees import NAMES, TREES, build
from vmm_arch import abi as modules
from vmm_arch.abi import kvm_aarch64, kvm_riscv64, kvm_x86_64, macros
from vmm_arch_gen.abi.evaluate import function
from vmm_arch_gen.abi.expression_text import canonical, parse
from vmm_arch_gen.abi.expressions import Argument, Binary, Expression, Offset, SizeOf, uses, walk
from vmm_arch_gen.abi.integers import U64, Undefined
from vmm_arch_gen.abi.layout import Layouts
from vmm_arch_gen.abi.model import Abi, MacroFunction
from vmm_arch_gen.abi.reader import read_abi_file
from vmm_arch_gen.abi.samples import Sample, Sampler
from vmm_arch_gen.diagnostics import InputError
from vmm_arch_gen.extract import verify_macros
from vmm_arch_gen.extract.toolchain import find_toolchain
from vmm_arch_gen.extract.verify import verify
from vmm_arch_gen.extract.verify_macros import Calls
from vmm_arch_gen.generate.macro_functions import python_function
from vmm_arch_gen.project import Project
from vmm_arch_gen.targets import TargetTable

TARGETS = ["kvm_x86_64", "kvm_aarch64", "kvm_riscv64", "kvm_loongarch64", "kvm_powerpc64le", "kvm_s390x",
           "devices_x86_64", "linux_x86_64"]  # fmt: skip
TYPES = {"int": ctypes.c_int, "char[77]": ctypes.c_char * 77, "unsigned long long": ctypes.c_uint64}


def calls(abi: Abi, seed: int) -> list[Calls]:
    """Calls of all macros, with the results of the generated functions."""
    module = importlib.import_module(f"{modules.__name__}.{abi.target}")
    sampler = Sampler(Layouts.of_abi(abi))
    return [
        Calls(macro, list(samples(macro, getattr(module, macro.name), sampler, seed)))
        for macro in abi.macros
    ]


def samples(
    macro: MacroFunction, called: Callable[..., int], sampler: Sampler, seed: int
) -> list[Sample]:
    chance = random.Random(f"{macro.name} {seed}")
    used = uses(macro.value)
    found: list[Sample] = []
    for _ in range(2000):
        texts: list[str] = []
        values: list[Any] = []
        for name in macro.parameters:
            match used.get(name, Argument(name)):
                case Offset(record):
                    path, _ = chance.choice(list(sampler.members(record)))
                    texts.append(path)
                    values.append(path)
                case SizeOf():
                    text = chance.choice(list(TYPES))
                    texts.append(text)
                    values.append(TYPES[text])
                case _:
                    number = chance.getrandbits(chance.choice((2, 5, 7, 8, 16, 33, 64)))
                    texts.append(f"{number}ULL")
                    values.append(number)
        try:
            result = called(*values)
        except (OverflowError, ZeroDivisionError):
            continue
        found.append(Sample(tuple(texts), (), result))
        if len(found) == 100:
            break
    return found


@pytest.mark.parametrize("target", TARGETS)
def test_the_compiler_agrees_to_what_the_functions_give(
    target: str, table: TargetTable, paths: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At other arguments than the facts were proven at."""
    row = table.targets[target]
    abi: Abi = read_abi_file(paths.abi / f"{target}.abi")
    abi = replace(abi, constants=(), ioctls=(), functions=(), macros=tuple(map(stated, abi.macros)))
    monkeypatch.setattr(verify_macros, "calls", lambda abi: calls(abi, 1))
    verify(abi, row, find_toolchain(row, table.package))


class PlainCalls(Calls):
    """Calls with plain ints, which give the value another type."""

    def differences(self, stated: Sequence[int]) -> Iterator[tuple[str, str, str]]:
        yield from super().differences([self.claimed[0], *stated[1:]])


SIGNED = {"_IOC"}
"""Where a plain int reaches the sign bit: the directions that headers give it are unsigned."""


@pytest.mark.parametrize("target", TARGETS)
def test_the_compiler_gives_the_same_for_small_plain_ints(
    target: str, table: TargetTable, paths: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As C code writes most calls: ``ARM64_SYS_REG(3, 0, 1, 0, 0)``."""
    row = table.targets[target]
    abi: Abi = read_abi_file(paths.abi / f"{target}.abi")
    abi = replace(abi, constants=(), ioctls=(), functions=(), macros=tuple(map(stated, abi.macros)))
    monkeypatch.setattr(verify_macros, "calls", lambda abi: list(with_plain_ints(abi)))
    different: set[str] = set()
    try:
        verify(abi, row, find_toolchain(row, table.package))
    except InputError as error:
        different = {re.findall(r"\w+(?=\()", problem.what)[0] for problem in error.problems}
    assert different <= SIGNED


def with_plain_ints(abi: Abi) -> Iterator[Calls]:
    for macro in abi.macros:
        used = uses(macro.value).values()
        if not all(isinstance(use, Argument) for use in used):
            continue
        compute = function(macro.value, macro.parameters)
        chance = random.Random(macro.name)
        found = []
        for _ in range(64):
            values = tuple(
                chance.randrange(1 << chance.choice((1, 2, 3, 4))) for _ in macro.parameters
            )
            try:
                found.append(Sample(tuple(map(str, values)), values, compute(values)))
            except Undefined:
                continue
        yield PlainCalls(macro, found)


def stated(macro: MacroFunction) -> MacroFunction:
    """A macro with what only its header says: which of them have statements."""
    return replace(
        macro, statements=macro.name.startswith(("KVM_X86_", "KVM_ARM_F", "__KERNEL_DIV_ROUND_C"))
    )


def written(value: Expression) -> Callable[..., int]:
    """The function that is generated for a value."""
    made = python_function(MacroFunction("M", NAMES, value, "h"), {}, (), {})
    body = "\n".join(f"    {statement}" for statement in made.statements)
    names: dict[str, Any] = dict(vars(macros))
    exec(f"def M(a, b):\n{body}", names)
    called: Callable[..., int] = names["M"]
    return called


WHOLE = st.one_of(
    st.integers(-3, 130),
    st.integers(-(1 << 70), 1 << 70),
    st.sampled_from([edge + d for n in (31, 32, 63, 64) for edge in (1 << n,) for d in (-1, 0, 1)]),
)


@given(TREES, st.lists(st.tuples(WHOLE, WHOLE), min_size=8))
def test_functions_have_the_value_of_any_expression(
    tree: object, arguments: list[tuple[int, int]]
) -> None:
    try:
        value = canonical(build(tree), NAMES, U64)
    except Undefined:
        return
    if any(
        isinstance(v, Binary) and v.op in ("<<", ">>") and v.right.type.size > 8
        for v in walk(value)
    ):
        return  # no header shifts by a number of 128 bits
    compute, called = function(value, NAMES), written(value)
    for pair in arguments:
        try:
            expected: int | None = compute([number & U64.mask for number in pair])
        except Undefined:
            expected = None
        try:
            found: int | None = called(*pair)
        except (OverflowError, ZeroDivisionError):
            found = None
        assert found == expected, (value, pair)


@pytest.mark.parametrize(
    ("text", "body"),
    [
        ("(a & 0xff) | (b << 8)", "return ((a & 0xFF) | (b << 8)) & 0xFFFFFFFFFFFFFFFF"),
        ("((a << 14) & 0xc000) | (b & 7)", "return ((a << 14) & 0xC000) | (b & 7)"),
        ("(a >> 8) & 0xff", "return (a >> 8) & 0xFF"),
        ("a >> 8", "return (a & 0xFFFFFFFFFFFFFFFF) >> 8"),
        ("a % 64", "return a % 64"),
        ("(u32)a * 16", "return (a * 16) & 0xFFFFFFFF"),
        ("16ULL + (u32)a * 16", "return 16 + ((a * 16) & 0xFFFFFFFF)"),
        ("1U << (a & 0xf)", "return 1 << (a & 0xF)"),
        ("1 << a", "return in_range(1 << shift_count(a & 0xFFFFFFFFFFFFFFFF, 32), 32)"),
        ("(s32)a / -2", "return quotient(as_signed(a, 32), -2)"),
        ("(a & 3) - (b & 3)", "return ((a & 3) - (b & 3)) & 0xFFFFFFFFFFFFFFFF"),
        ("(a & 3) * (b & 3) + 1", "return (a & 3) * (b & 3) + 1"),
        ("a != 0", "return int((a & 0xFFFFFFFFFFFFFFFF) != 0)"),
    ],
)  # fmt: skip
def test_masks_stand_only_where_a_type_needs_them(text: str, body: str) -> None:
    value = parse(text, NAMES, U64)
    made = python_function(MacroFunction("M", NAMES, value, "h"), {}, (), {})
    assert made.statements == (body,)


def test_what_is_wanted_twice_is_converted_once() -> None:
    value = parse("a >= 16 && a <= 8192", NAMES, U64)
    made = python_function(MacroFunction("M", NAMES, value, "h"), {}, (), {})
    assert made.statements == ("a &= 0xFFFFFFFFFFFFFFFF", "return int(a >= 16 and a <= 0x2000)")


def test_registers_by_the_names_of_members() -> None:
    assert kvm_aarch64.ARM64_SYS_REG(3, 0, 1, 0, 0) == 0x603000000013C080
    assert kvm_aarch64.KVM_REG_ARM_CORE_REG("regs.pc") == 64
    assert kvm_aarch64.KVM_REG_ARM_CORE_REG("regs.regs[30]") == 60
    assert kvm_aarch64.KVM_REG_ARM_CORE_REG("fp_regs.vregs[1]") == 84 + 4
    assert kvm_riscv64.KVM_REG_RISCV_CORE_REG("regs.sp") == 2
    assert kvm_x86_64.KVM_X86_REG_MSR(0x1B) == 0x203000020000001B


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("regs.rip", "user_pt_regs has no member rip"),
        ("regs.pc.x", "has no member x"),
        ("regs[0]", "is not an array of so many dimensions"),
        ("", "is not a path"),
        ("regs..pc", "is not a path"),
    ],
)
def test_a_member_that_there_is_not_is_named(path: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        kvm_aarch64.KVM_REG_ARM_CORE_REG(path)


def test_ioctl_numbers_of_ones_own_records() -> None:
    record = kvm_x86_64.kvm_regs
    assert kvm_x86_64._IOW(0xAE, 0x82, record) == kvm_x86_64.KVM_SET_REGS
    assert kvm_x86_64._IO(0xAE, 0x80) == kvm_x86_64.KVM_RUN


def test_what_c_leaves_undefined_is_an_error() -> None:
    assert kvm_x86_64._BITUL(63) == 1 << 63
    with pytest.raises(OverflowError, match="64 bits are shifted by 64, which C leaves undefined"):
        kvm_x86_64._BITUL(64)
    with pytest.raises(ZeroDivisionError):
        kvm_x86_64.__KERNEL_DIV_ROUND_UP(1, 0)
