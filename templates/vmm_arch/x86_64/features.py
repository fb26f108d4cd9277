"""What a processor can do, by names instead of bits of CPUID: looked at, added, removed.

The names are those of Linux's /proc/cpuinfo, as in ``avx2``, or the lower-case form of Linux's macro
where /proc/cpuinfo has none. The bits are those of ``asm/cpufeatures.h``: of
:mod:`vmm_arch.abi.cpuid_x86_64`, which is imported when the first of them is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import filter as matching
from functools import cache
from typing import Final

from vmm_arch.x86_64.cpuid import CpuidEntry


@dataclass(frozen=True, slots=True)
class FeatureBit:
    """Where CPUID says that there is a feature."""

    function: int
    """The leaf (EAX)."""
    subleaf: int
    """The subleaf (ECX); 0 if the leaf has none."""
    register: str
    """``"eax"``, ``"ebx"``, ``"ecx"`` or ``"edx"``."""
    bit: int

    def __str__(self) -> str:
        subleaf = f".{self.subleaf}" if self.subleaf else ""
        return f"CPUID {self.function:#x}{subleaf} {self.register.upper()} bit {self.bit}"


_WORDS: Final[Mapping[int, tuple[int, int, str]]] = {
    0: (0x1, 0, "edx"),
    1: (0x8000_0001, 0, "edx"),
    2: (0x8086_0001, 0, "edx"),
    4: (0x1, 0, "ecx"),
    5: (0xC000_0001, 0, "edx"),
    6: (0x8000_0001, 0, "ecx"),
    9: (0x7, 0, "ebx"),
    10: (0xD, 1, "eax"),
    12: (0x7, 1, "eax"),
    13: (0x8000_0008, 0, "ebx"),
    14: (0x6, 0, "eax"),
    15: (0x8000_000A, 0, "edx"),
    16: (0x7, 0, "ecx"),
    18: (0x7, 0, "edx"),
    19: (0x8000_001F, 0, "eax"),
    20: (0x8000_0021, 0, "eax"),
}
"""The words of Linux's numbers that are one register of a leaf (enum cpuid_leafs, asm/cpufeature.h).

The others are Linux's own.
"""
_PREFIX: Final = "X86_FEATURE_"
_CPUINFO_NAMES: Final[Mapping[str, str]] = {
    "acc": "tm",
    "ds": "dts",
    "dscpl": "ds_cpl",
    "gbpages": "pdpe1gb",
    "mwait": "monitor",
    "nrips": "nrip_save",
    "selfsnoop": "ss",
    "svml": "svm_lock",
    "tscratemsr": "tsc_scale",
    "vmcbclean": "vmcb_clean",
    "xcrypt": "ace",
    "xcrypt_en": "ace_en",
    "xmm": "sse",
    "xmm2": "sse2",
    "xmm3": "pni",
    "xmm4_1": "sse4_1",
    "xmm4_2": "sse4_2",
    "xstore": "rng",
    "xstore_en": "rng_en",
}
"""The names in /proc/cpuinfo that differ from the macros' ones."""
_ALIASES: Final[Mapping[str, str]] = {"sse3": "pni", "sse4.1": "sse4_1", "sse4.2": "sse4_2"}
"""Names by which people know features that have another one here."""


@cache
def feature_bits() -> Mapping[str, FeatureBit]:
    """All features that have a name, each with its bit."""
    from vmm_arch.abi import cpuid_x86_64  # only here: who changes no feature has no use for names

    found = {}
    for name, value in vars(cpuid_x86_64).items():
        if name.startswith(_PREFIX) and isinstance(value, int) and value // 32 in _WORDS:
            macro = name.removeprefix(_PREFIX).lower()
            bit = FeatureBit(*_WORDS[value // 32], value % 32)
            found[_CPUINFO_NAMES.get(macro, macro)] = bit
    return found


@cache
def feature_names() -> Mapping[tuple[int, int, str], Mapping[str, int]]:
    """The bits with a name of each leaf, subleaf and register that has such."""
    found: dict[tuple[int, int, str], dict[str, int]] = {}
    for name, bit in sorted(feature_bits().items(), key=lambda item: item[1].bit):
        found.setdefault((bit.function, bit.subleaf, bit.register), {})[name] = bit.bit
    return found


def cpuid_features(entries: Iterable[CpuidEntry]) -> frozenset[str]:
    """The features that CPUID's results have. ::

    "avx2" in cpuid_features(arch.supported_cpuid())
    """
    leaves = {(entry.function, entry.index or 0): entry for entry in entries}
    return frozenset(
        name
        for name, bit in feature_bits().items()
        if (entry := leaves.get((bit.function, bit.subleaf))) is not None
        and getattr(entry, bit.register) >> bit.bit & 1
    )


def with_features(
    entries: Iterable[CpuidEntry], *, add: Iterable[str] = (), remove: Iterable[str] = ()
) -> list[CpuidEntry]:
    """Return CPUID's results with some features more or less. ::

        cpuid = with_features(arch.supported_cpuid(), remove=["avx512*", "vmx", "svm"])
        vm = arch.Vm(memory, cpuid=cpuid)

    Names to remove may be patterns, as of file names. Nothing else changes: what builds on a removed
    feature is to be removed as well, and the hypervisor may refuse, or ignore, what the host's
    processor cannot do. Raises ValueError, which lists everything that is wrong: unknown names, and
    features to add whose leaf is not among the results.
    """
    given = list(entries)
    problems: list[str] = []
    added, removed = _named(add, problems, patterns=False), _named(remove, problems, patterns=True)
    both = sorted(added & removed)
    problems += [f"{name}: both to be added and to be removed" for name in both]
    places = {(entry.function, entry.index or 0): place for place, entry in enumerate(given)}
    for names, set_to in ((added, 1), (removed, 0)):
        for name in sorted(names):
            bit = feature_bits()[name]
            place = places.get((bit.function, bit.subleaf))
            if place is not None:
                value = getattr(given[place], bit.register) & ~(1 << bit.bit) | set_to << bit.bit
                given[place] = replace(given[place], **{bit.register: value})
            elif set_to:
                problems.append(f"{name}: there is no result of {bit} to set")
    if problems:
        raise ValueError("\n".join(problems))
    return given


def _named(names: Iterable[str], problems: list[str], *, patterns: bool) -> set[str]:
    """The known names; what is not known becomes a problem."""
    if isinstance(names, str):
        raise TypeError(f"{names!r} is one name; give a list of names")
    known, found = feature_bits(), set()
    for name in names:
        wanted = _ALIASES.get(name, name)
        matches = matching(known, wanted) if patterns else [wanted] if wanted in known else []
        if not matches:
            problems.append(f"{name}: no feature has this name{_similar(wanted, known)}")
        found.update(matches)
    return found


def _similar(name: str, known: Iterable[str]) -> str:
    close: Sequence[str] = get_close_matches(name, [*known, *_ALIASES])
    return f"; did you mean {' or '.join(close)}?" if close else "; feature_bits() has them all"
