"""What snapshots keep of x86_64's processors: the machine's CPUID, and its host's.

A host is the list of entries that it can give a guest. In a file an entry is called after its leaf and
subleaf, ``0x7:0x0``, and is EAX, EBX, ECX and EDX.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, Final

from vmm_arch.x86_64.cpuid import CpuidEntry, identity
from vmm_arch.x86_64.features import cpuid_features, feature_bits
from vmm_arch.x86_64.topology import Topology, TopologyError

_REGISTERS: Final = ("eax", "ebx", "ecx", "edx")
_WORDS: Final = range(1 << 32)
_OF_MACHINES: Final = frozenset({"ht", "cmp_legacy", "osxsave", "ospke"})
"""Features that follow from the number of vCPUs and from what a guest enables, not from the host."""


class SnapshotProcessor:
    """See :class:`vmm_arch.snapshot.record.Processor`."""

    ADDED: Final = frozenset({"topology"})

    def requests_as_data(self, requests: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "cpuid": self.host_as_data(requests["cpuid"]),
            "topology": asdict(requests["topology"]),
        }

    def requests_of_data(self, data: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
        return {
            "cpuid": _entries(data["cpuid"], "machine: cpuid", problems),
            "topology": _topology(data["topology"], problems),
        }

    def host_as_data(self, host: Iterable[CpuidEntry]) -> dict[str, list[str]]:
        return {
            f"{entry.function:#x}"
            + ("" if entry.index is None else f":{entry.index:#x}"): [
                f"{getattr(entry, register):#x}" for register in _REGISTERS
            ]
            for entry in host
        }

    def host_of_data(self, data: Any, problems: list[str]) -> list[CpuidEntry]:
        return _entries(data, "host", problems)

    def lacking(
        self,
        requests: Mapping[str, Any],
        former: Iterable[CpuidEntry],
        present: Sequence[CpuidEntry],
    ) -> list[str]:
        """The features, by name; and if there are any, the processor that had them."""
        former = list(former)
        wanted = (cpuid_features(requests["cpuid"]) & cpuid_features(former)) - _OF_MACHINES
        lacking = sorted(wanted - cpuid_features(present))
        bits = feature_bits()
        problems = [
            f"{name}: this host's processor does not have it ({bits[name]})" for name in lacking
        ]
        if problems:
            problems.append(
                f"taken on {self.describe(former)}; this host has {self.describe(present)}"
            )
        return problems

    def describe(self, host: Iterable[CpuidEntry]) -> str:
        """Vendor, family, model and stepping."""
        return identity(host)


def _topology(data: Any, problems: list[str]) -> Topology | None:
    """None for what a file of a former version leaves out: the vCPUs are cores of one socket."""
    if data is None:
        return None
    names = {field.name for field in fields(Topology)}
    if not isinstance(data, dict) or set(data) != names:
        problems.append(
            f"machine: topology: expected a JSON object with {', '.join(sorted(names))}"
        )
        return None
    try:
        return Topology(**data)
    except TopologyError as error:
        problems += (f"machine: topology: {problem}" for problem in error.problems)
        return None


def _entries(data: Any, where: str, problems: list[str]) -> list[CpuidEntry]:
    if not isinstance(data, dict):
        problems.append(f"{where}: not a JSON object")
        return []
    found = []
    for name, given in data.items():
        leaf, colon, subleaf = name.partition(":")
        values = given if isinstance(given, list) and len(given) == len(_REGISTERS) else [None]
        numbers = [_number(text) for text in (leaf, *([subleaf] if colon else []), *values)]
        if None in numbers:
            problems.append(f"{where}: {name[:40]!r} is not a leaf with four 32-bit values")
            continue
        function, *index = numbers[: 1 + len(colon)]
        found.append(CpuidEntry(function, index[0] if index else None, *numbers[-4:]))
    return found


def _number(text: Any) -> Any:
    """The number that a text as ``hex()`` writes it means, of 32 bits; None if it means none."""
    if not isinstance(text, str) or len(text) > 10:
        return None
    try:
        value = int(text, 16)
    except ValueError:
        return None
    return value if value in _WORDS and text == hex(value) else None
