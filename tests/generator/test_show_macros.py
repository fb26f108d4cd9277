"""What ``show`` says of macros with arguments, of calls of them, and of numbers that such a call gives."""

from __future__ import annotations

import importlib
import json
import random

import pytest
from vmm_arch.abi import kvm_aarch64, kvm_x86_64
from vmm_arch_gen.abi.layout import Layouts
from vmm_arch_gen.abi.reader import read_abi_file
from vmm_arch_gen.abi.samples import Sampler
from vmm_arch_gen.diagnostics import InputError
from vmm_arch_gen.project import Project
from vmm_arch_gen.show.calls import Calls, calls_of
from vmm_arch_gen.show.find import find
from vmm_arch_gen.show.text import as_json, as_text


def lines(paths: Project, name: str, *targets: str) -> list[str]:
    found, others = find(paths.abi, name, targets)
    return [line for line, _ in as_text(found, others, expand=False)][2:]


def test_a_macro_has_its_arguments_its_type_and_its_value(paths: Project) -> None:
    assert lines(paths, "KVM_REG_SIZE", "kvm_aarch64") == [
        "KVM_REG_SIZE(id) -> u32, in linux/kvm.h",
        "    1U << ((id & 0xf0000000000000) >> 52)",
    ]


@pytest.mark.parametrize(
    ("call", "value"),
    [
        ("ARM64_SYS_REG(3, 0, 1, 0, 0)", "0x603000000013c080, u64"),
        ("ARM64_SYS_REG(0x3,0b0,1UL,00,0)", "0x603000000013c080, u64"),
        ("KVM_REG_SIZE(ARM64_SYS_REG(3, 0, 1, 0, 0))", "8, u32"),
        ("KVM_REG_ARM_CORE_REG(regs.regs[30])", "0x3c, u64"),
        ("KVM_REG_ARM_FW_REG(-1)", "0x603000000014ffff, u64"),
        ("_IOW(KVMIO, 0x82, struct kvm_regs)", "0x4360ae82, u64"),
        ("_IOC_TYPECHECK(__u64[3])", "0x18, u64"),
        ("_IOC_NR(KVM_RUN)", "0x80, u64"),
        ("__sve_vl_valid(64)", "1, s32"),
    ],
)
def test_a_call_has_a_value(call: str, value: str, paths: Project) -> None:
    assert lines(paths, call, "kvm_aarch64")[-1] == f"{call}  = {value}"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("ARM64_SYS_REG(3)", "takes 5 arguments (op0, op1, crn, crm, op2), and here are 1"),
        ("KVM_REG_SIZE(nothing)", "the argument id is a number, which nothing is not"),
        ("KVM_REG_SIZE(NOTHING(1))", "NOTHING is not a macro that takes arguments"),
        ("KVM_REG_ARM_CORE_REG(regs.rip)", "struct kvm_regs has no member regs.rip that has an offset"),
        ("KVM_REG_ARM_CORE_REG(regs.pc[0])", "pc in regs.pc[0] is not an array with an element 0"),
        ("KVM_REG_ARM_CORE_REG(1 + 1)", "1 + 1 is not a path of members"),
        ("_IOC_TYPECHECK(struct absent)", "the argument t is a type, which struct absent is not"),
        ("_BITUL(64)", "C leaves this undefined: it shifts 64 bits by 64"),
        ("__KERNEL_DIV_ROUND_UP(1, 0)", "C leaves this undefined: it divides by zero"),
        ("ARM64_SYS_REG_SHIFT_MASK(1, 2)", "left out of asm/kvm.h: makes a name of its argument n (##)"),
        ("ARM64_SYS_RAG(1)", "did you mean ARM64_SYS_REG"),
    ],
)  # fmt: skip
def test_a_call_without_a_value_is_refused(call: str, message: str, paths: Project) -> None:
    with pytest.raises(InputError) as caught:
        find(paths.abi, call, ["kvm_aarch64"])
    assert message in str(caught.value)


def test_the_target_is_one_that_has_all_names_of_a_call(paths: Project) -> None:
    found, _ = find(paths.abi, "KVM_REG_SIZE(ARM64_SYS_REG(3, 0, 1, 0, 0))", [])
    assert [things.abi.target for things in found] == ["kvm_aarch64"]


def test_the_number_of_a_register_is_taken_apart(paths: Project) -> None:
    number = hex(kvm_aarch64.ARM64_SYS_REG(3, 0, 1, 0, 0))
    assert lines(paths, number) == [f"ARM64_SYS_REG(3, 0, 1, 0, 0)  = {number}, u64"]
    assert lines(paths, "0x603000000013df02") == [
        "KVM_REG_ARM_TIMER_CVAL  0x603000000013df02, in asm/kvm.h",
        "",
        "ARM64_SYS_REG(3, 3, 14, 0, 2)  = 0x603000000013df02, u64",
    ]
    number = hex(kvm_x86_64.KVM_X86_REG_MSR(0x174))
    assert lines(paths, number) == [f"KVM_X86_REG_MSR(0x174)  = {number}, u64"]


def test_numbers_are_taken_apart_into_the_call_that_gave_them(paths: Project) -> None:
    chance = random.Random(3)
    text = (paths.abi / "kvm_aarch64.abi").read_text()
    for _ in range(50):
        op0, op1, crn, crm, op2 = (chance.randrange(1 << bits) for bits in (2, 3, 4, 4, 3))
        number = kvm_aarch64.ARM64_SYS_REG(op0, op1, crn, crm, op2)
        assert f"ARM64_SYS_REG({op0}, {op1}, {crn}, {crm}, {op2})" in calls_of(text, number)
        number = kvm_aarch64.KVM_REG_ARM64_SVE_ZREG(crn, crm)
        assert f"KVM_REG_ARM64_SVE_ZREG({crn}, {crm})" in calls_of(text, number)


def test_a_number_that_only_a_whole_argument_gives_is_none_of_a_macros(paths: Project) -> None:
    with pytest.raises(InputError, match="has this number or value"):
        find(paths.abi, "0x123456789abcdef0", [])


def test_json(paths: Project) -> None:
    found, _ = find(paths.abi, "_BITUL(3)", ["kvm_x86_64"])
    (things,) = json.loads(as_json(found, expand=False))
    assert things["calls"] == [{"call": "_BITUL(3)", "value": 8, "type": "u64"}]
    (macro,) = things["macros"]
    assert macro == {
        "name": "_BITUL",
        "arguments": ["x"],
        "type": "u64",
        "expression": "1ULL << x",
        "header": "linux/const.h",
    }


@pytest.mark.parametrize("target", ["kvm_aarch64", "kvm_riscv64"])
def test_calls_give_what_the_modules_functions_give(target: str, paths: Project) -> None:
    abi = read_abi_file(paths.abi / f"{target}.abi")
    calls, sampler = Calls(abi), Sampler(Layouts.of_abi(abi))
    module = importlib.import_module(f"vmm_arch.abi.{target}")
    for macro in abi.macros:
        for sample in sampler.samples(macro, 5)[0]:
            value, _ = calls.value(f"{macro.name}({', '.join(sample.texts)})")
            assert value == sample.result
            if all(text.endswith("ULL") for text in sample.texts):
                assert getattr(module, macro.name)(*sample.values) == value
