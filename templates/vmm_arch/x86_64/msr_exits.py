"""Which accesses to model-specific registers are exits: sets of them, and bitmaps for a hypervisor."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from vmm_arch.x86_64.msr import X2APIC, msr_text

X2APIC_MSRS = frozenset(range(X2APIC, X2APIC + 0x100))
"""The registers of a local APIC in x2APIC mode."""
_ALL = 1 << 32
_PADDING = 8
"""Bitmaps are whole 64-bit words."""


class AllExcept:
    """Every MSR except these: ``AllExcept([IA32_TSC])``; ``AllExcept()`` is every MSR."""

    __slots__ = ("indices",)
    indices: frozenset[int]

    def __init__(self, indices: Iterable[int] = ()) -> None:
        self.indices = _checked(indices)

    def __repr__(self) -> str:
        return f"AllExcept([{', '.join(map(msr_text, sorted(self.indices)))}])"


MsrSet: TypeAlias = Collection[int] | AllExcept
"""MSRs by their indices."""


@dataclass(frozen=True, slots=True)
class MsrBitmap:
    """Some neighbouring MSRs, and for each of them whether an access is an exit."""

    is_write: bool
    base: int
    count: int
    allowed: bytes
    """A bit for each, the lowest first: 0 if the access is an exit. Whole 64-bit words."""


def listed(msrs: MsrSet) -> frozenset[int]:
    """The MSRs that a set lists: those that exit, or those that do not. Raises ValueError."""
    return msrs.indices if isinstance(msrs, AllExcept) else _checked(msrs)


def msr_bitmaps(reads: MsrSet, writes: MsrSet, most: int) -> Iterator[MsrBitmap]:
    """Yield bitmaps for all MSRs that the sets list, as few as possible.

    ``most`` is the number of MSRs in one bitmap.
    """
    for is_write, msrs in enumerate((reads, writes)):
        group: list[int] = []
        for index in sorted(listed(msrs)):
            if group and index - group[0] >= most:
                yield _bitmap(bool(is_write), group, isinstance(msrs, AllExcept))
                group = []
            group.append(index)
        if group:
            yield _bitmap(bool(is_write), group, isinstance(msrs, AllExcept))


def _bitmap(is_write: bool, group: list[int], allowed: bool) -> MsrBitmap:
    base, count = group[0], group[-1] - group[0] + 1
    bits = sum(1 << index - base for index in group)
    if not allowed:
        bits ^= (1 << count) - 1
    size = -(-count // (8 * _PADDING)) * _PADDING
    return MsrBitmap(is_write, base, count, bits.to_bytes(size, "little"))


def _checked(indices: Iterable[int]) -> frozenset[int]:
    """The indices as a set; ValueError names those that are none."""
    found = frozenset(indices)
    if wrong := sorted(index for index in found if not 0 <= index < _ALL):
        text = ", ".join(map(hex, wrong))
        raise ValueError(f"{text}: the index of an MSR is an unsigned 32-bit value")
    return found
