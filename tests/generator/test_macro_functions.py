"""Macros with arguments: which become facts, in what form, and that the compiler proves them."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from macro_mutations import mutate
from macro_trees import NAMES, TREES, build
from vmm_arch_gen.abi import expressions
from vmm_arch_gen.abi.evaluate import function
from vmm_arch_gen.abi.expression_text import canonical, parse, spell
from vmm_arch_gen.abi.expressions import Argument
from vmm_arch_gen.abi.integers import U64, Undefined
from vmm_arch_gen.abi.layout import Layouts
from vmm_arch_gen.abi.model import Abi
from vmm_arch_gen.abi.reader import read_abi_file
from vmm_arch_gen.abi.samples import COUNT, Sampler
from vmm_arch_gen.abi.writer import write_abi
from vmm_arch_gen.diagnostics import InputError
from vmm_arch_gen.extract.extract import extract
from vmm_arch_gen.extract.toolchain import find_toolchain
from vmm_arch_gen.extract.verify import verify
from vmm_arch_gen.project import Project
from vmm_arch_gen.targets import TargetTable

import headers

IOCTL = "_IO _IOC _IOC_DIR _IOC_NR _IOC_SIZE _IOC_TYPE _IOC_TYPECHECK _IOR _IOW _IOWR"
KVM = "KVM_REG_SIZE _BITUL _BITULL __ALIGN_KERNEL __KERNEL_DIV_ROUND_CLOSEST __KERNEL_DIV_ROUND_UP"
EXPECTED = {
    "kvm_x86_64": f"{IOCTL} {KVM} KVM_X86_REG_ID KVM_X86_REG_KVM KVM_X86_REG_MSR KVM_X86_REG_TYPE_SIZE"
    " KVM_X86_KVM_REG_SIZE KVM_PMU_ENCODE_MASKED_ENTRY __GENMASK __GENMASK_ULL __GENMASK_U128",
    "kvm_aarch64": f"{IOCTL} {KVM} ARM64_SYS_REG __ARM64_SYS_REG KVM_REG_ARM_CORE_REG KVM_REG_ARM_FW_REG"
    " KVM_REG_ARM_FW_FEAT_BMAP_REG KVM_REG_ARM64_SVE_FFR KVM_REG_ARM64_SVE_PREG KVM_REG_ARM64_SVE_ZREG"
    " KVM_ARM_FEATURE_ID_RANGE_IDX KVM_VM_TYPE_ARM_IPA_SIZE KVM_PSCI_FN PSCI_0_2_FN PSCI_0_2_FN64"
    " PSCI_VERSION PSCI_VERSION_MAJOR PSCI_VERSION_MINOR __SVE_FFR_OFFSET __SVE_FFR_SIZE"
    " __SVE_PREGS_OFFSET __SVE_PREGS_SIZE __SVE_PREG_OFFSET __SVE_PREG_SIZE __SVE_ZREGS_SIZE"
    " __SVE_ZREG_OFFSET __SVE_ZREG_SIZE __sve_vl_from_vq __sve_vl_valid __sve_vq_from_vl SVE_PT_SIZE"
    " SVE_PT_SVE_SIZE ZA_PT_SIZE ZA_PT_ZAV_OFFSET ZA_PT_ZA_SIZE",
    "kvm_riscv64": f"{IOCTL} {KVM} KVM_DEV_RISCV_AIA_ADDR_IMSIC KVM_DEV_RISCV_AIA_IMSIC_GET_ISEL"
    " KVM_DEV_RISCV_AIA_IMSIC_GET_VCPU KVM_DEV_RISCV_AIA_IMSIC_MKATTR KVM_REG_RISCV_CONFIG_REG"
    " KVM_REG_RISCV_CORE_REG KVM_REG_RISCV_CSR_AIA_REG KVM_REG_RISCV_CSR_REG"
    " KVM_REG_RISCV_CSR_SMSTATEEN_REG KVM_REG_RISCV_FP_D_REG KVM_REG_RISCV_FP_F_REG"
    " KVM_REG_RISCV_ISA_MULTI_MASK KVM_REG_RISCV_ISA_MULTI_REG KVM_REG_RISCV_SBI_FWFT_REG"
    " KVM_REG_RISCV_SBI_MULTI_MASK KVM_REG_RISCV_SBI_MULTI_REG KVM_REG_RISCV_SBI_STA_REG"
    " KVM_REG_RISCV_TIMER_REG KVM_REG_RISCV_VECTOR_CSR_REG KVM_REG_RISCV_VECTOR_REG",
    "kvm_loongarch64": f"{IOCTL} {KVM} KVM_IOC_CPUCFG KVM_IOC_CSRID LOONGARCH_REG_64",
    "kvm_powerpc64le": f"{KVM} _IOC _IOR KVM_REG_PPC_FPR KVM_REG_PPC_TM_GPR KVM_REG_PPC_TM_VSR"
    " KVM_REG_PPC_VR KVM_REG_PPC_VSR",
    "kvm_s390x": f"{IOCTL} {KVM} KVM_S390_INT_IO",
    "mshv_x86_64": IOCTL,
    "mshv_aarch64": IOCTL,
    "linux_x86_64": "ELF32_R_SYM ELF32_R_TYPE ELF32_ST_BIND ELF32_ST_TYPE ELF64_R_SYM ELF64_R_TYPE"
    " ELF64_ST_BIND ELF64_ST_TYPE ELF_ST_BIND ELF_ST_TYPE",
}


@pytest.mark.parametrize("target", EXPECTED)
def test_the_macros_that_make_an_interface_are_facts(target: str, paths: Project) -> None:
    abi = read_abi_file(paths.abi / f"{target}.abi")
    assert not set(EXPECTED[target].split()) - {macro.name for macro in abi.macros}


PROLOGUE = """
typedef unsigned int u32; typedef unsigned long long u64; typedef signed char tiny; typedef _Bool flag;
enum { FIRST = 3, LAST = 0x90000000 };
struct inner { u32 x; u64 y[3]; };
struct outer { u32 a; struct inner many[2]; union { u32 b; struct { u64 c; }; }; u32 bits : 3; };
extern int variable; int called(int x);
#define SHIFT 4
#define BASE 0x1000
#define FIELD(x, n) (((x) << SHIFT_##n) & MASK_##n)
#define SHIFT_LOW 2
#define MASK_LOW 0xfc
"""


@pytest.mark.parametrize(
    ("macro", "value"),
    [
        # what is a constant is one number, whatever it is made of
        ("M(x) (BASE | ((x) & 0xff) | 1 << SHIFT)", "M(x) -> u64 = 0x1010 | (x & 0xff)"),
        ("M(x) ((x) + sizeof(struct outer))", "M(x) -> u64 = x + 88"),
        ("M(x) ((x) | FIRST | LAST)", "M(x) -> u64 = 0x90000003 | x"),
        ("M(x) ((x) + 16 - sizeof(u64) - 8)", "M(x) -> u64 = x"),
        ("M(x) (0xff & (x))", "M(x) -> u64 = x & 0xff"),
        ("M(x) (4 * (x) * 4)", "M(x) -> u64 = x * 16"),
        # macros inside it are gone, those that paste tokens included
        ("M(x) FIELD(x, LOW)", "M(x) -> u64 = (x << 2) & 0xfc"),
        ("N(a, b) ((a) << 8 | (b))\n#define M(...) (N(__VA_ARGS__) | BASE)", "M(a, b) -> u64 = 0x1000 | (a << 8) | b"),
        # types are C's
        ("M(x) ((u32)(x) * 16)", "M(x) -> u32 = (u32)x * 16"),
        ("M(x) ((u32)(x) * 16ULL)", "M(x) -> u64 = (u32)x * 16ULL"),
        ("M(x) ((u64)(u32)(x) * 16)", "M(x) -> u64 = (u64)(u32)x * 16"),
        ("M(x) (1U << (x))", "M(x) -> u32 = 1U << x"),
        ("M(x) (1 << (x))", "M(x) -> s32 = 1 << x"),
        ("M(x) ((tiny)(x))", "M(x) -> s32 = (s8)x"),
        ("M(x) ((flag)(x) << 3)", "M(x) -> s32 = (x != 0) << 3"),
        ("M(x) ((int)(x) / -2)", "M(x) -> s32 = (s32)x / -2"),
        ("M(x) ((unsigned __int128)(x) << 64)", "M(x) -> u128 = (u128)x << 64"),
        ("M(x) (-1 + (x))", "M(x) -> u64 = x - 1"),
        ("M(x, y) (-16 * (x) + (y) + 3 * (x))", "M(x, y) -> u64 = y - x * 13"),
        # conditions
        ("M(x) (!(x))", "M(x) -> s32 = x == 0"),
        ("M(x) (!!(x) << 3)", "M(x) -> s32 = (x != 0) << 3"),
        ("M(x, y) (!((x) < (y)))", "M(x, y) -> s32 = x >= y"),
        ("M(x) (5 < (x) && (x))", "M(x) -> s32 = x > 5 && x != 0"),
        ("M(x) ((x) == 2 ? 7ULL : 0)", "M(x) -> u64 = x == 2 ? 7ULL : 0"),
        ("M(x) (sizeof(u64) == 8 ? (x) + 1 : 0)", "M(x) -> u64 = x + 1"),
        # offsets and sizes
        ("M(m) (__builtin_offsetof(struct outer, m) / 4)", "M(m) -> u64 = offsetof(struct outer, m) / 4"),
        ("M(n) ((n) + __builtin_offsetof(struct outer, many[1].y[2]))", "M(n) -> u64 = n + 64"),
        ("M(t) (sizeof(t) << 16)", "M(t) -> u64 = sizeof(t) << 16"),
        ("M(t) (sizeof((t) + 1U))", "M(t) -> u64 = 8ULL"),
        # GNU's blocks
        ("M(x) ({ u32 v = (x) & 3; v -= (v == 3); v << 6; })", "M(x) -> u32 = ((u32)(x & 3) - ((u32)(x & 3) == 3)) << 6"),
        ("M(x) ({ __typeof__(x) v = x; v ? ({ u64 w; w = v + 1; w; }) : 0; })", "M(x) -> u64 = x != 0 ? x + 1 : 0"),
        ("M() (BASE)", "M() -> s32 = 0x1000"),
        ("M(unused, x) (x | 1)", "M(unused, x) -> u64 = x | 1"),
    ],
)  # fmt: skip
def test_values(macro: str, value: str, table: TargetTable, tmp_path: Path) -> None:
    abi = headers.prove(
        f"{PROLOGUE}#define {macro}\n", table.targets["kvm_x86_64"], table, tmp_path
    )
    lines = [line for line in write_abi(abi).splitlines() if " M(" in line]
    assert lines == [f"macro {value} in test.h"]


@pytest.mark.parametrize(
    ("macro", "reason"),
    [
        ("M(x)", "is empty"),
        ("EMPTY\n#define M(x) EMPTY", "expands to nothing"),
        ("M(x) x", "is its argument, whatever that is"),
        ("M(...) (0)", "takes any number of arguments"),
        ("M(a, ...) ((a) + called(__VA_ARGS__))", "takes any number of arguments"),
        ("M(a, b) a##b", "makes a name of its argument a (##)"),
        ("M(a) (FIRST + x_##a)", "makes a name of its argument a (##)"),
        ("M(a) #a", "makes a string"),
        ('M(a) ((a) + sizeof("text"))', "has a string in it"),
        ("M(a) do { (void)(a); } while (0)", "is made of statements: do"),
        ("M(a) ({ if (a) 1; 2; })", "is made of statements: if"),
        ("M(a) ({ u64 v = (a); })", "is made of statements that have no value"),
        ("M(a) ({ u64 v; v + (a); })", "reads v before it is set"),
        ("M(a) static int a", "declares something: static"),
        ("M(a) a __attribute__((packed))", "declares something: __attribute__"),
        ("M(a) ((a)++)", "has a side effect: ++"),
        ("M(a) (--(a))", "has a side effect: --"),
        ("M(a) ((a) = 1)", "has a side effect: ="),
        ("M(a) ((a) |= 1)", "has a side effect: |="),
        ("M(a) ({ u64 v = 1; a = v; v; })", "has a side effect: ="),
        ("M(a) called(a)", "calls called"),
        ("M(a) (*(u32 *)(a))", "depends on more than its arguments: it accesses memory"),
        ("M(a) ((a)->x)", "depends on more than its arguments: it accesses memory"),
        ("M(a) ((a).x)", "depends on more than its arguments: it accesses memory"),
        ("M(a) ((a)[1])", "depends on more than its arguments: it accesses memory"),
        ("M(a) ((a) + variable)", "depends on more than its arguments: the variable variable"),
        ("M(a) __has_attribute(a)", "depends on where, when or by which compiler it is expanded"),
        ("M(a) ((a) + __LINE__)", "depends on where, when or by which compiler it is expanded"),
        ("HERE __COUNTER__\n#define M(a) ((a) + HERE)", "depends on where, when or by which compiler it is expanded"),
        ("M(a) ((a) ? 1 + M((a) - 1) : 0)", "refers to itself"),
        ("N(a) M(a)\n#define M(a) (1 + N(a))", "refers to itself"),
        ("M(t, x) ((t)(x))", "uses its argument t as a type or function"),
        ("M(t, m) (__builtin_offsetof(t, m))", "is not an expression: (__builtin_offsetof(t, m))"),
        ("M(m) (__builtin_offsetof(struct outer, many[m]))", "has an offset of a member that depends on its arguments"),
        ("M(t) (sizeof(t) + (t))", "uses t as two things"),
        ("M(x) ((x) + ABSENT)", "names ABSENT, which the headers do not define"),
        ("M(x) ((x) * 1.5)", "1.5 is not an integer"),
        ("M(x) ((float)(x))", "has a type in it that is not an integer"),
        ("M(x) ((void *)(x))", "has a type in it that is not an integer"),
        ("M(x) ((x) / 0)", "it divides by zero"),
        ("M(x) ((x) << 64)", "it shifts 64 bits by 64"),
        ("M(x) (1 << ((x) | 32))", "is defined for no arguments that were tried"),
        ("M(x) ((x) +", "is not an expression: ((x) +"),
        ("M(x) x) + (1", "is not an expression: x) + (1"),
        ("N(a, b) (a)\n#define M(x) N(x)", "is not expanded: the compiler says: too few arguments provided to function-like macro invocation"),
        ("inner(x) ((x) + 1)\n#define M(x) (x)", "has the name of a type or function, too"),
    ],
)  # fmt: skip
def test_what_is_no_value_is_left_out_with_the_reason(
    macro: str, reason: str, table: TargetTable, tmp_path: Path
) -> None:
    abi = headers.prove(
        f"{PROLOGUE}#define {macro}\n", table.targets["kvm_x86_64"], table, tmp_path
    )
    name = macro.partition("(")[0] if "inner" in macro else "M"
    assert [o.reason for o in abi.omissions if o.name == name] == [reason]
    assert name not in {m.name for m in abi.macros}


# -- the canonical form ------------------------------------------------------------------------


@given(TREES, st.lists(st.tuples(st.integers(0, 70), st.integers(0, (1 << 64) - 1)), min_size=4))
def test_the_text_of_a_value_is_read_as_that_value(
    tree: object, arguments: list[tuple[int, int]]
) -> None:
    try:
        value = build(tree)
    except Undefined:
        return
    settled = canonical(value, NAMES, U64)
    assert parse(spell(settled), NAMES, U64) == settled
    assert settled.type == value.type
    before, after = (function(v, NAMES) for v in (value, settled))
    for pair in arguments:
        assert outcome(before, pair) == outcome(after, pair)


def outcome(compute: object, arguments: tuple[int, ...]) -> int | None:
    try:
        return compute(arguments)  # type: ignore[operator, no-any-return]
    except Undefined:
        return None


# -- proof -------------------------------------------------------------------------------------

NAMED = re.compile(r"^the (?:value of|type of|calls of) (\w+)")


@pytest.fixture(scope="module")
def arm(table: TargetTable) -> Abi:
    target = table.targets["kvm_aarch64"]
    abi = extract(target, find_toolchain(target, table.package))
    return replace(abi, constants=(), ioctls=(), functions=())  # which other tests are about


def test_the_compiler_contradicts_every_wrong_value(arm: Abi, table: TargetTable) -> None:
    """Seeded mutations of all macros of a target: none goes unnoticed, and none is invented."""
    target = table.targets["kvm_aarch64"]
    toolchain = find_toolchain(target, table.package)
    layouts = Layouts.of_abi(arm)
    tried = 0
    for seed in range(10):
        wrong, changed = [], set()
        for macro in arm.macros:
            value = mutate(macro, random.Random(f"{macro.name} {seed}"), layouts)
            if value is not None:
                macro = replace(macro, value=value)
                changed.add(macro.name)
            wrong.append(macro)
        said: set[str] = set()
        while said != changed:
            left = tuple(macro for macro in wrong if macro.name not in said)
            with pytest.raises(InputError) as caught:
                verify(replace(arm, macros=left), target, toolchain)
            said |= {name for p in caught.value.problems for name in NAMED.findall(p.what)}
            assert said <= changed
        tried += len(changed)
    assert tried >= 500


def test_macros_are_proven_at_enough_arguments(paths: Project) -> None:
    for path in sorted(paths.abi.glob("*.abi")):
        abi = read_abi_file(path)
        sampler = Sampler(Layouts.of_abi(abi))
        for macro in abi.macros:
            samples, undefined = sampler.samples(macro)
            numbers = [u for u in expressions.uses(macro.value).values() if isinstance(u, Argument)]
            # Where there are fewer, they are all: members, types, or counts that C allows.
            assert len(samples) == COUNT or undefined or not numbers, macro.name
            assert samples, macro.name
