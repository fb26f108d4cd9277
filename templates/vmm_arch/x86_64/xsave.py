"""The registers in an XSAVE area beyond x87 and SSE: which bytes each has, by its name.

Source: Intel SDM volume 1, 13.4 and 13.5; volume 2A, CPUID leaf 0xD.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from vmm_arch.x86_64.cpuid import CpuidEntry

_LEAF: Final = 0xD
_FIRST: Final = 2
"""The first component that is not in the legacy area."""
_COMPACTED: Final = 1 << 63
"""In XCOMP_BV: the components that it names lie one after the other."""
_ALIGNED: Final = 1 << 1
"""In ECX of a component: in the compacted format it begins at a multiple of 64."""


class _Registers(NamedTuple):
    """Registers of one size, one after the other."""

    names: tuple[str, ...]
    size: int


def _numbered(name: str, count: int, first: int = 0) -> tuple[str, ...]:
    return tuple(name.format(first + i) for i in range(count))


_COMPONENTS: Final = {
    2: [_Registers(_numbered("ymm{}[255:128]", 16), 16)],
    3: [_Registers(_numbered("bnd{}", 4), 16)],
    4: [_Registers(("bndcfgu", "bndstatus"), 8)],
    5: [_Registers(_numbered("k{}", 8), 8)],
    6: [_Registers(_numbered("zmm{}[511:256]", 16), 32)],
    7: [_Registers(_numbered("zmm{}", 16, first=16), 64)],
    9: [_Registers(("pkru",), 4)],
    11: [_Registers(("cet_u.msr", "cet_u.ssp"), 8)],
    12: [_Registers(("cet_s.pl0_ssp", "cet_s.pl1_ssp", "cet_s.pl2_ssp"), 8)],
    17: [_Registers(("tilecfg",), 64)],
    18: [_Registers(_numbered("tmm{}", 8), 1024)],
    19: [_Registers(_numbered("r{}", 16, first=16), 8)],
}
"""What is in each component."""


def xsave_registers(cpuid: Iterable[CpuidEntry], xcomp_bv: int) -> dict[str, tuple[int, int]]:
    """The first byte and the size of each register in an area, by its name.

    ``cpuid`` is that of the machine, where leaf 0xD has the places of the components; of one that is
    not known here the whole is called ``xsave component 62``. ``xcomp_bv`` is the area's own.
    """
    components = {e.index: e for e in cpuid if e.function == _LEAF and (e.index or 0) >= _FIRST}
    found: dict[str, tuple[int, int]] = {}
    for number, at, size in _places(components, xcomp_bv):
        end = at + size
        for of_one_size in _COMPONENTS.get(number, ()):
            for name in of_one_size.names:
                if at + of_one_size.size <= end:
                    found[name] = at, of_one_size.size
                    at += of_one_size.size
        if at < end and number not in _COMPONENTS:
            found[f"xsave component {number}"] = at, end - at
    return found


def _places(
    components: dict[int | None, CpuidEntry], xcomp_bv: int
) -> Iterator[tuple[int, int, int]]:
    """The components in an area, each with its first byte and its size."""
    at = 576  # after the header
    for number in range(_FIRST, 63):
        entry = components.get(number)
        if entry is None or not entry.eax:
            continue
        if not xcomp_bv & _COMPACTED:
            if entry.ebx >= at:  # others are the supervisor's, which only a compacted area has
                yield number, entry.ebx, entry.eax
        elif xcomp_bv >> number & 1:
            if entry.ecx & _ALIGNED:
                at = -(-at // 64) * 64
            yield number, at, entry.eax
            at += entry.eax
