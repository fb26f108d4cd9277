"""Forms of saved state that only x86_64 has: CPUID, the XSAVE area, the local APIC's page, MSRs."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final

from vmm_arch.state_forms import Element, Part
from vmm_arch.x86_64 import lapic, msr
from vmm_arch.x86_64.cpuid import CpuidEntry
from vmm_arch.x86_64.features import feature_names
from vmm_arch.x86_64.fpu import XSTATE_SSE, XSTATE_X87
from vmm_arch.x86_64.xsave import xsave_registers

_REGISTERS: Final = ("eax", "ebx", "ecx", "edx")


class CpuidForm:
    """What CPUID says: a sequence of entries. An element is called ``cpuid 0x7:0x0 ebx``."""

    def elements(self, saved: Iterable[CpuidEntry]) -> dict[str, Element]:
        return {
            f"{_leaf(entry)} {register}": Element(getattr(entry, register), 32)
            for entry in saved
            for register in _REGISTERS
        }

    def bits(self, name: str) -> Mapping[str, int]:
        """Features, as Linux names them."""
        if (parsed := _parsed(name)) is None:
            return {}
        function, index, register = parsed
        return feature_names().get((function, index or 0, register), {})

    def shape(self, saved: Iterable[CpuidEntry]) -> object:
        return [(entry.function, entry.index) for entry in saved]

    def width(self, name: str) -> int | None:
        return None if _parsed(name) is None else 32

    def blank(self) -> tuple[CpuidEntry, ...]:
        return ()

    def changed(
        self, saved: Iterable[CpuidEntry], changes: Mapping[str, Element]
    ) -> tuple[CpuidEntry, ...]:
        values = {(entry.function, entry.index): entry for entry in saved}
        registers: dict[tuple[int, int | None], dict[str, int]] = {
            key: {register: getattr(entry, register) for register in _REGISTERS}
            for key, entry in values.items()
        }
        for name, element in changes.items():
            parsed = _parsed(name)
            assert parsed is not None
            function, index, register = parsed
            registers.setdefault((function, index), {})[register] = element.value
        return tuple(
            CpuidEntry(function, index, **given) for (function, index), given in registers.items()
        )


def _leaf(entry: CpuidEntry) -> str:
    return f"cpuid {entry.function:#x}" + ("" if entry.index is None else f":{entry.index:#x}")


def _parsed(name: str) -> tuple[int, int | None, str] | None:
    """The leaf, subleaf and register that an element's name says; None if it says none."""
    match name.split(" "):
        case ["cpuid", leaf, register] if register in _REGISTERS:
            function, colon, index = leaf.partition(":")
            try:
                parsed = int(function, 16), int(index, 16) if colon else None
            except ValueError:
                return None
            if 0 <= parsed[0] < 1 << 32 and 0 <= (parsed[1] or 0) < 1 << 32:
                return *parsed, register
    return None


_LEGACY: Final = {
    "fcw": (0, 2),
    "fsw": (2, 2),
    "ftw": (4, 1),
    "fop": (6, 2),
    "fip": (8, 8),
    "fdp": (16, 8),
    "mxcsr": (24, 4),
    **{f"st{i}": (32 + 16 * i, 10) for i in range(8)},
    **{f"xmm{i}": (160 + 16 * i, 16) for i in range(16)},
    "xstate_bv": (512, 8),
    "xcomp_bv": (520, 8),
}
"""Offsets and sizes in the FXSAVE area and the XSAVE header (Intel SDM volume 1, 10.5.1, 13.4.2)."""
_XSTATE_BV: Final = 512
_XCOMP_BV: Final = 520
_EXTENDED: Final = 576
XSAVE_COMPONENTS: Final = "xsave.extended"


class XsaveForm:
    """An XSAVE area of any size, as bytes: the legacy registers, and the rest as one element, which
    is printed and compared by the registers in it.

    Who changes the rest has to set the bits of its components in ``xstate_bv`` as well.
    """

    def elements(self, saved: Any) -> dict[str, Element]:
        area = bytes(saved)
        found = {
            name: Element(int.from_bytes(area[at : at + size], "little"), 8 * size)
            for name, (at, size) in _LEGACY.items()
        }
        rest = area[_EXTENDED:]
        found[XSAVE_COMPONENTS] = Element(int.from_bytes(rest, "little"), 8 * len(rest))
        return found

    def parts(self, name: str, saved: Any, others: Mapping[str, Any]) -> Mapping[str, Part]:
        """The registers of AVX and what came after it, by the places that the machine's CPUID says."""
        if name != XSAVE_COMPONENTS:
            return {}
        xcomp_bv = int.from_bytes(bytes(saved)[_XCOMP_BV : _XCOMP_BV + 8], "little")
        return {
            register: Part(at - _EXTENDED, size)
            for register, (at, size) in xsave_registers(others.get("cpuid") or (), xcomp_bv).items()
            if at + size <= len(saved)
        }

    def shape(self, saved: Any) -> object:
        return len(saved)

    def width(self, name: str) -> int | None:
        return 8 * _LEGACY[name][1] if name in _LEGACY else 0 if name == XSAVE_COMPONENTS else None

    def blank(self) -> bytearray:
        return bytearray(_EXTENDED)

    def changed(self, saved: Any, changes: Mapping[str, Element]) -> Any:
        copy = bytearray(saved)
        for name, element in changes.items():
            data = element.value.to_bytes(element.bits // 8, "little")
            at = _EXTENDED if name == XSAVE_COMPONENTS else _LEGACY[name][0]
            copy[at : None if name == XSAVE_COMPONENTS else at + len(data)] = data
        if "xstate_bv" not in changes:  # without its bit a component would be ignored
            for name in changes:
                copy[_XSTATE_BV] |= XSTATE_SSE if name.startswith(("xmm", "mxcsr")) else XSTATE_X87
        return copy


@cache
def _apic_names() -> dict[str, int]:
    known = {value: name for name, value in vars(lapic).items() if name.startswith("APIC_")}
    return {known.get(at, f"APIC_{at:#x}"): at for at in range(0, 0x400, 0x10)}


@cache
def _apic_numbers() -> dict[str, str]:
    return {f"APIC_{at:#x}": name for name, at in _apic_names().items()}


class LapicForm:
    """The local APIC's page: 64 registers of 32 bits."""

    def __init__(self, page: Any) -> None:
        self._page = page

    def elements(self, saved: Any) -> dict[str, Element]:
        words = struct.unpack_from("<" + "I12x" * 64, saved)
        return {n: Element(words[at // 0x10], 32) for n, at in _apic_names().items()}

    def shape(self, saved: Any) -> object:
        return None

    def present_name(self, name: str) -> str:
        """A register that was only a number may have got a name."""
        return _apic_numbers().get(name, name)

    def width(self, name: str) -> int | None:
        return 32 if name in _apic_names() else None

    def blank(self) -> Any:
        return self._page()

    def changed(self, saved: Any, changes: Mapping[str, Element]) -> Any:
        copy = self._page.from_buffer_copy(saved)
        for name, element in changes.items():
            copy[_apic_names()[name]] = element.value
        return copy


@cache
def _element_names() -> dict[int, str]:
    found = {
        value: name
        for name, value in vars(msr).items()
        if isinstance(value, int) and name.startswith(("IA32_", "HV_X64_", "AMD_"))
    }
    for i in range(16):
        found[msr.IA32_MTRR_PHYSBASE0 + 2 * i] = f"IA32_MTRR_PHYSBASE{i}"
        found[msr.IA32_MTRR_PHYSBASE0 + 2 * i + 1] = f"IA32_MTRR_PHYSMASK{i}"
    return found


def msr_element(index: int) -> str:
    """What an MSR is called; ``MSR 0x123`` if it has no name here."""
    return _element_names().get(index) or f"MSR {index:#x}"


def msr_label(index: int) -> str:
    """An MSR in a message: its element, and where that is only a number Linux's name for it."""
    element = msr_element(index)
    return element if index in _element_names() else f"MSR {msr.msr_text(index)}"


def present_msr_name(name: str) -> str:
    """What an MSR's element is called today: one that was only a number may have got a name."""
    head, _, digits = name.partition(" ")
    if head != "MSR" or len(digits) > 10 or not digits.startswith("0x"):
        return name
    try:
        index = int(digits, 16)
    except ValueError:
        return name
    return msr_element(index) if digits == hex(index) else name


def element_label(name: str) -> str:
    """An element's name, with Linux's name for an MSR that is only a number."""
    index = msr_of_element(name) if name.startswith("MSR ") else None
    return name if index is None else msr_label(index)


@cache
def _element_indices() -> dict[str, int]:
    return {name: index for index, name in _element_names().items()}


def msr_of_element(name: str) -> int | None:
    """The MSR with a name; None if there is none."""
    if name in _element_indices():
        return _element_indices()[name]
    head, _, digits = name.partition(" ")
    if head == "MSR" and digits.startswith("0x"):
        try:
            index = int(digits, 16)
        except ValueError:
            return None
        return index if index < 1 << 32 and msr_element(index) == name else None
    return None
