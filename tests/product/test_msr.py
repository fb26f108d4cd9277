"""MSRs by name: the names that Linux' headers have, and which of their constants are none."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from requirements import require
from vmm_arch.abi import hyperv_x86_64, msr_x86_64
from vmm_arch.x86_64 import msr
from vmm_arch.x86_64.exits import MsrRead, MsrWrite
from vmm_arch.x86_64.msr import msr_name, msr_names, msr_text
from vmm_arch.x86_64.state_forms import msr_label
from vmm_arch_gen.diagnostics import InputError
from vmm_arch_gen.fetch.packages import unpacked
from vmm_arch_gen.targets import TargetTable


@pytest.mark.parametrize(
    ("index", "names"),
    [
        (0x10, ["MSR_IA32_TSC"]),
        (0x1B, ["MSR_IA32_APICBASE"]),
        (0xFE, ["MSR_MTRRcap"]),
        (0x1A0, ["MSR_IA32_MISC_ENABLE"]),
        (0x200, ["MTRRphysBase_MSR(0)"]),
        (0x21F, ["MTRRphysMask_MSR(15)"]),
        (0x250, ["MSR_MTRRfix64K_00000"]),
        (0x277, ["MSR_IA32_CR_PAT"]),
        (0x283, ["MSR_IA32_MCx_CTL2(3)"]),
        (0x2FF, ["MSR_MTRRdefType"]),
        (0x400, ["MSR_IA32_MC0_CTL"]),
        (0x405, ["MSR_IA32_MCx_STATUS(1)"]),
        (0x47F, ["MSR_IA32_MCx_MISC(31)"]),
        (0x6E0, ["MSR_IA32_TSC_DEADLINE"]),
        (0x800, ["x2APIC 0x0"]),
        (0x80B, ["x2APIC 0xb0"]),
        (0x8FF, ["x2APIC 0xff0"]),
        (0xC0000080, ["MSR_EFER"]),
        (0xC0000081, ["MSR_STAR"]),
        (0xC0000084, ["MSR_SYSCALL_MASK"]),
        (0xC0010015, ["MSR_K7_HWCR"]),
        (0x11, ["MSR_KVM_WALL_CLOCK"]),
        (0x4B564D00, ["MSR_KVM_WALL_CLOCK_NEW"]),
        (0x4B564D06, ["MSR_KVM_ASYNC_PF_INT"]),
        (0x40000000, ["HV_X64_MSR_GUEST_OS_ID"]),
        (0x40000002, ["HV_X64_MSR_VP_INDEX"]),
        (0x40000020, ["HV_X64_MSR_TIME_REF_COUNT"]),
        (0x400000B1, ["HV_X64_MSR_STIMER0_COUNT"]),
        (0x40001080, ["HV_X64_MSR_NESTED_SCONTROL"]),
        (0x40001FFF, []),
        # Several: an architectural name first, one of a single processor last.
        (0x10A, ["MSR_IA32_ARCH_CAPABILITIES", "MSR_IDT_FCR4"]),
        (0x8B, ["MSR_IA32_UCODE_REV", "MSR_AMD64_PATCH_LEVEL"]),
        (0x3FA, ["MSR_PKG_C7_RESIDENCY", "MSR_ATOM_PKG_C6_RESIDENCY"]),
        (0xC0000082, ["MSR_LSTAR", "MSR_K6_WHCR"]),
        # Values of bits and fields, which are called much like registers.
        (0xFFFFF000, []),
        (29, []),
        (0x220, []),
        (0x12345678, []),
        (1 << 32, []),
        (-1, []),
    ],
)  # fmt: skip
def test_an_msr_has_the_names_that_linux_has_for_it(index: int, names: list[str]) -> None:
    assert list(msr_names(index)) == names
    assert msr_name(index) == (names[0] if names else None)
    assert msr_text(index) == f"{index:#x}" + (f" ({' or '.join(names)})" if names else "")


@pytest.mark.parametrize(
    "name",
    [
        "MSR_TEST_CTRL_SPLIT_LOCK_DETECT_BIT",
        "MSR_TEST_CTRL_SPLIT_LOCK_DETECT",
        "MSR_IA32_APICBASE_ENABLE",
        "MSR_IA32_APICBASE_BASE",
        "MSR_IA32_BNDCFGS_RSVD",
        "MSR_IA32_PMC_V6_STEP",
        "MSR_AMD64_IBSOP_REG_COUNT",
        "MSR_AMD64_SNP_RESERVED_BIT13",
        "MSR_AMD64_SNP_VTOM",
    ],
)
def test_a_bit_or_a_field_of_an_msr_is_none(name: str) -> None:
    value: int = getattr(msr_x86_64, name)
    assert name not in msr_names(value)


def test_msrs_that_the_package_uses_have_names() -> None:
    indices = {
        name: value
        for name, value in vars(msr).items()
        if name.startswith("IA32_") and isinstance(value, int)
    }
    assert len(indices) > 20
    assert {name for name, index in indices.items() if not msr_name(index)} == set()


def test_the_rule_finds_what_the_header_numbers(table: TargetTable) -> None:
    """In the header the number of a register is written in full, and a bit as a shift or decimal."""
    target = table.targets["msr_x86_64"]
    try:
        (header,) = (
            unpacked(folder.package) / folder.path / "asm/msr-index.h"
            for folder in target.folders
            if folder.package and folder.path == "arch/x86/include"
        )
    except InputError as error:
        require(False, str(error))
    defined = dict(
        re.findall(r"^#define\s+(MSR_\w+)\s+(.+?)\s*(?:/\*.*)?$", header.read_text(), re.M)
    )
    # Some counters are numbered from the first one.
    numbered = re.compile(r"0x[0-9a-fA-F]+|MSR_\w+|\(MSR_\w+ \+ \d+\)")
    written = {name for name, body in defined.items() if numbered.fullmatch(body)}
    ours = {name for name in defined if name in msr_names(getattr(msr_x86_64, name))}
    assert len(ours) > 500
    assert (ours - written, written - ours) == (set(), {"MSR_IA32_BNDCFGS_RSVD"})


def test_hyper_vs_constants_are_numbers_of_registers_where_its_registers_are() -> None:
    constants = {
        name: value for name, value in vars(hyperv_x86_64).items() if name.startswith("HV_X64_MSR_")
    }
    others = {name for name, value in constants.items() if name not in msr_names(value)}
    parts = re.compile(r"\w+_(ENABLE|SHIFT|MASK)|HV_X64_MSR_CRASH_PARAMS")
    assert len(constants) - len(others) == 60
    assert {name for name in others if not parts.fullmatch(name)} == set()


@pytest.mark.parametrize("register", ["CTL", "STATUS", "ADDR", "MISC", "CTL2"])
def test_banks_are_numbered_as_linux_macros_number_them(register: str) -> None:
    macro = getattr(msr_x86_64, f"MSR_IA32_MCx_{register}")
    for bank in range(1, 32):
        assert msr_names(macro(bank)) == (f"MSR_IA32_MCx_{register}({bank})",)


def test_exits_show_the_names() -> None:
    read = MsrRead(lambda exit, value: None)
    read.index = 0xC0000080
    assert repr(read) == "MsrRead(index=0xc0000080 (MSR_EFER))"
    write = MsrWrite(lambda exit, value: None)
    write.index, write.value = 0x186, 7
    assert repr(write) == ("MsrWrite(index=0x186 (MSR_IA32_MCG_EBP or MSR_P6_EVNTSEL0), value=0x7)")


def test_refused_state_is_said_by_the_elements_name_or_linuxs() -> None:
    labels = [msr_label(index) for index in (0xC0000081, 0x250, 0x12345678)]
    assert labels == ["IA32_STAR", "MSR 0x250 (MSR_MTRRfix64K_00000)", "MSR 0x12345678"]


@pytest.mark.parametrize("backend", ["kvm_x86_64", "whp_x86_64"])
def test_names_are_loaded_when_the_first_is_asked_for(backend: str) -> None:
    code = (
        f"import sys; from vmm_arch import {backend} as arch;"
        "msr = ('vmm_arch.abi.msr', 'vmm_arch.abi.hyperv');"
        "names = lambda: [n for n in sys.modules if n.startswith(msr)];"
        "before = names(); print(before, arch.msr_name(0xC0000080), names())"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert said.stdout == "[] MSR_EFER ['vmm_arch.abi.msr_x86_64']\n"
