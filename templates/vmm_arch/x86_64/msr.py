"""Model-specific registers by index (Intel SDM volume 4, chapter 2), and the names that Linux has for them.

The names are those of ``asm/msr-index.h``, ``asm/kvm_para.h`` and ``hyperv/hvgdk_mini.h``: of
:mod:`vmm_arch.abi.msr_x86_64` and :mod:`vmm_arch.abi.hyperv_x86_64`, which are imported when the
first of their names is needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache

IA32_TSC = 0x10
IA32_APIC_BASE = 0x1B
IA32_TSC_ADJUST = 0x3B
IA32_SPEC_CTRL = 0x48
IA32_BIOS_SIGN_ID = 0x8B
IA32_MTRRCAP = 0xFE
IA32_TSX_CTRL = 0x122
IA32_SYSENTER_CS = 0x174
IA32_SYSENTER_ESP = 0x175
IA32_SYSENTER_EIP = 0x176
IA32_MISC_ENABLE = 0x1A0
MISC_ENABLE_FAST_STRINGS = 0x1
IA32_MTRR_PHYSBASE0 = 0x200
IA32_MTRR_FIXED = (0x250, 0x258, 0x259, *range(0x268, 0x270))
IA32_PAT = 0x277
IA32_MC0_CTL2 = 0x280
IA32_MC0_CTL = 0x400
IA32_MTRR_DEF_TYPE = 0x2FF
MTRR_ENABLE = 0x800
MTRR_TYPE_WRITE_BACK = 0x6
IA32_TSC_DEADLINE = 0x6E0
X2APIC = 0x800
IA32_XSS = 0xDA0
HYPERV_MSRS = range(0x40000000, 0x40002000)  # Hypervisor Top Level Functional Specification
HV_X64_MSR_VP_INDEX = 0x40000002
HV_X64_MSR_VP_RUNTIME = 0x40000010
HV_X64_MSR_TIME_REF_COUNT = 0x40000020
IA32_EFER = 0xC0000080
EFER_LME = 0x100
EFER_LMA = 0x400
IA32_STAR = 0xC0000081
IA32_LSTAR = 0xC0000082
IA32_CSTAR = 0xC0000083
IA32_FMASK = 0xC0000084
IA32_FS_BASE = 0xC0000100
IA32_GS_BASE = 0xC0000101
IA32_KERNEL_GS_BASE = 0xC0000102
IA32_TSC_AUX = 0xC0000103
AMD_OSVW = (0xC0010140, 0xC0010141)


def msr_name(index: int) -> str | None:
    """The name of an MSR: ``"MSR_EFER"`` for 0xC0000080; None if Linux has none.

    Where it has several, for processors of different makes or times, the first of
    :func:`msr_names`.
    """
    return next(iter(msr_names(index)), None)


def msr_names(index: int) -> tuple[str, ...]:
    """All names of an MSR: an architectural one (``MSR_IA32_…``) first, one processor's last.

    Registers that there are several of have the names of Linux' macros: ``MSR_IA32_MCx_CTL(3)``,
    ``MTRRphysBase_MSR(0)``; those of the local APIC their offset in its page: ``x2APIC 0x80``.

    The headers also define bits and fields of MSRs, under names of the same form. What begins with
    ``MSR_``, or with ``HV_X64_MSR_`` and is no smaller than Hyper-V's first MSR, is the number of a
    register unless

    - a word of the name is BIT (``MSR_TEST_CTRL_SPLIT_LOCK_DETECT_BIT``), or
    - the value is a run of ones, so a bit or a mask, and the name continues another one
      (``MSR_IA32_APICBASE_ENABLE``), has a twin in ``_BIT``, or has the word MASK, COUNT or STEP.
    """
    names = _hyperv_names() if index in HYPERV_MSRS else _linux_names()
    return names.get(index) or tuple(_numbered(index))


def msr_text(index: int) -> str:
    """An MSR for people: ``0xc0000080 (MSR_EFER)``, or only the number."""
    names = " or ".join(msr_names(index))
    return f"{index:#x} ({names})" if names else f"{index:#x}"


_ONE_PROCESSORS = frozenset({"ATOM", "GEODE", "IDT", "K6", "K7", "K8", "P4", "P6", "TMTA", "VIA"})
"""Words of names that only some old or small processors have."""


@cache
def _linux_names() -> Mapping[int, tuple[str, ...]]:
    from vmm_arch.abi import msr_x86_64  # only here: who meets no MSR has no use for its names

    return _registers(vars(msr_x86_64), "MSR_", range(1 << 32))


@cache
def _hyperv_names() -> Mapping[int, tuple[str, ...]]:
    from vmm_arch.abi import hyperv_x86_64

    return _registers(vars(hyperv_x86_64), "HV_X64_MSR_", HYPERV_MSRS)


def _registers(
    names: Mapping[str, object], prefix: str, possible: range
) -> dict[int, tuple[str, ...]]:
    """The constants with a prefix that are numbers of registers, by number."""
    constants = {name: value for name, value in names.items() if isinstance(value, int)}
    found: dict[int, list[str]] = {}
    for name, value in constants.items():
        if name.startswith(prefix) and value in possible and not _is_part(name, constants):
            found.setdefault(value, []).append(name)
    return {index: tuple(sorted(names, key=_rank)) for index, names in found.items()}


def _rank(name: str) -> tuple[bool, bool, str]:
    return not _ONE_PROCESSORS.isdisjoint(name.split("_")), "_IA32_" not in name, name


def _is_part(name: str, constants: Mapping[str, int]) -> bool:
    """Whether a constant is a bit or a field of a register, or a number of either."""
    words = name.split("_")
    if any(re.fullmatch(r"BITS?[0-9]*", word) for word in words):
        return True
    value = constants[name]
    lowest = value & -value
    if value & (value + lowest):  # the ones in it are no single run
        return False
    longer = ("_".join(words[:count]) for count in range(2, len(words)))
    return (
        f"{name}_BIT" in constants
        or not {"MASK", "COUNT", "STEP"}.isdisjoint(words)
        or any(register in constants for register in longer)
    )


def _numbered(index: int) -> Iterator[str]:
    """The name of a register that there are several of."""
    if 0 <= (at := index - IA32_MTRR_PHYSBASE0) < 2 * 16:
        yield f"MTRRphys{('Base', 'Mask')[at % 2]}_MSR({at // 2})"
    elif 0 <= (at := index - IA32_MC0_CTL2) < 32:
        yield f"MSR_IA32_MCx_CTL2({at})"
    elif 0 <= (at := index - IA32_MC0_CTL) < 4 * 32:
        yield f"MSR_IA32_MCx_{('CTL', 'STATUS', 'ADDR', 'MISC')[at % 4]}({at // 4})"
    elif 0 <= (at := index - X2APIC) < 0x100:
        yield f"x2APIC {at << 4:#x}"
