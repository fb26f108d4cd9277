"""What a snapshot is of, beside its memory, as values that JSON has; and such values checked."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from operator import attrgetter
from typing import Any, Final, Protocol

from vmm_arch.memory import Region
from vmm_arch.state import SavedMachineState

_DEEPEST: Final = 32
"""How many lists and objects of a caller's devices may lie in each other."""
_LARGEST: Final = 1 << 64
"""Integers below it, and above its negative, are in every reader's range."""


@dataclass(frozen=True)
class Configuration:
    """How a machine was made, so that another one like it can be."""

    regions: tuple[Region, ...]
    vcpus: int
    irqchip: bool
    track_dirty: bool
    requests: Mapping[str, Any]
    """The arguments that only machines of its CPU have, such as ``cpuid``, by their names."""

    @property
    def size(self) -> int:
        """Bytes of memory."""
        return sum(region.size for region in self.regions)


class Processor(Protocol):
    """What a CPU knows of the machines' arguments that only it has, and of its hosts.

    A host is what it can give a guest, in the CPU's own words.
    """

    @property
    def ADDED(self) -> Collection[str]:
        """The arguments that files of former versions leave out."""

    def requests_as_data(self, requests: Mapping[str, Any], /) -> dict[str, Any]:
        """The arguments as values that JSON has, by the same names."""

    def requests_of_data(self, data: Mapping[str, Any], problems: list[str], /) -> dict[str, Any]:
        """The arguments that values of a file mean, which are not yet checked."""

    def host_as_data(self, host: Any, /) -> Any:
        """A host as a value that JSON has."""

    def host_of_data(self, data: Any, problems: list[str], /) -> Any:
        """The host that a value of a file means, which is not yet checked."""

    def lacking(self, requests: Mapping[str, Any], former: Any, present: Any, /) -> list[str]:
        """What a machine with these arguments has of its former host, and the present one lacks."""

    def describe(self, host: Any, /) -> str:
        """A host's processor, in a few words."""


@dataclass(frozen=True)
class Record:
    """What a snapshot is of, beside its memory."""

    configuration: Configuration
    state: SavedMachineState
    devices: Mapping[str, Any]
    host: Any
    """Where it was taken; None if that could not be asked."""
    base: str | None
    """The digest of the snapshot that it is an increment of."""


def as_data(record: Record, backend: str, facts: str, cpu: Processor) -> dict[str, Any]:
    """A record as values that JSON has."""
    made = record.configuration
    return {
        "backend": backend,
        "facts": facts,
        "base": record.base,
        "host": None if record.host is None else cpu.host_as_data(record.host),
        "machine": {
            "regions": [
                {"address": hex(r.address), "size": hex(r.size), "read_only": r.read_only}
                for r in made.regions
            ],
            "vcpus": made.vcpus,
            "irqchip": made.irqchip,
            "track_dirty": made.track_dirty,
            **cpu.requests_as_data(made.requests),
        },
        "state": record.state._as_data(),
        "devices": dict(record.devices),
    }


def of_data(
    data: Mapping[str, Any],
    backend: str,
    requests: Sequence[str],
    cpu: Processor,
    kind: type[SavedMachineState],
    problems: list[str],
) -> Record | None:
    """The record that values of a file mean; None if anything is wrong with them."""
    if data.get("backend") != backend:
        problems.append(f"is of {_shown(data.get('backend'))}, not of {backend}")
        return None
    before = len(problems)
    wanted = {
        "backend": str,
        "facts": str,
        "base": str | None,
        "host": object,
        "machine": dict,
        "state": dict,
        "devices": dict,
    }
    _check(data, "the header", wanted, problems)
    made = _configuration(data.get("machine"), requests, cpu, problems)
    wrong: list[str] = []
    state = kind._from_data(data.get("state"), wrong)
    problems += (f"state: {problem}" for problem in wrong)
    host = data.get("host")
    if host is not None:
        host = cpu.host_of_data(host, problems)
    base = data.get("base")
    if isinstance(base, str) and not (len(base) == 64 and set(base) <= set("0123456789abcdef")):
        problems.append("base: not 64 hexadecimal digits")
    devices = data.get("devices")
    if isinstance(devices, dict):
        problems += not_json(devices)
    if len(problems) > before or made is None or state is None:
        return None
    if made.vcpus != len(state.vcpus):
        problems.append(f"machine: {made.vcpus} vCPUs, and the state of {len(state.vcpus)}")
        return None
    assert isinstance(devices, dict)
    return Record(made, state, devices, host, base)


def not_json(devices: Mapping[str, Any]) -> Iterator[str]:
    """What of a caller's devices JSON does not have; a copy by way of JSON is equal otherwise."""
    yield from _not_json(devices, "devices", 0)


def _not_json(value: Any, where: str, depth: int) -> Iterator[str]:
    match value:
        case None | bool() | str():
            return
        case int():
            if not -_LARGEST < value < _LARGEST:
                yield f"{where}: an integer of more than 64 bits; write it as text"
        case float():
            if not isfinite(value):
                yield f"{where}: {value} is no number that JSON has"
        case dict() | list() if depth == _DEEPEST:
            yield f"{where}: more than {_DEEPEST} lists and dictionaries in each other"
        case dict():
            for key, inner in value.items():
                if isinstance(key, str):
                    yield from _not_json(inner, f"{where}[{_shown(key)}]", depth + 1)
                else:
                    yield f"{where}: the key {_shown(key)} is not a str"
        case list():
            for index, inner in enumerate(value):
                yield from _not_json(inner, f"{where}[{index}]", depth + 1)
        case _:
            yield f"{where}: JSON has no {type(value).__name__}"


def _configuration(
    data: Any, requests: Sequence[str], cpu: Processor, problems: list[str]
) -> Configuration | None:
    if not isinstance(data, dict):
        return None
    wanted = {
        "regions": list,
        "vcpus": int,
        "irqchip": bool,
        "track_dirty": bool,
        **{name: object for name in requests if name in data or name not in cpu.ADDED},
    }
    before = len(problems)
    _check(data, "machine", wanted, problems)
    regions = tuple(_regions(data.get("regions"), problems))
    given = cpu.requests_of_data({name: data.get(name) for name in requests}, problems)
    if len(problems) > before:
        return None
    return Configuration(regions, data["vcpus"], data["irqchip"], data["track_dirty"], given)


def _regions(data: Any, problems: list[str]) -> Sequence[Region]:
    if not isinstance(data, list):
        return []
    if not data:
        problems.append("machine: no regions of memory")
    wanted = {"address": str, "size": str, "read_only": bool}
    found: list[Region] = []
    for index, given in enumerate(data):
        where = f"machine: region {index}"
        wrong: list[str] = []
        if not isinstance(given, dict):
            problems.append(f"{where}: not a JSON object")
            continue
        _check(given, where, wanted, wrong)
        address, size = (number(given.get(k), f"{where}: {k}", wrong) for k in ("address", "size"))
        problems += wrong
        if not wrong:
            try:
                found.append(Region(address, size, given["read_only"]))
            except ValueError as error:
                problems.append(f"{where}: {error}")
    found.sort(key=attrgetter("address"))
    problems += (
        f"machine: regions {lower} and {upper} overlap"
        for lower, upper in pairwise(found)
        if lower.end > upper.address
    )
    return found


def number(value: Any, where: str, problems: list[str]) -> int:
    """The number that a text like 0x1f means, of 64 bits at most; 0 if it is none."""
    digits = value.removeprefix("0x") if isinstance(value, str) else ""
    if value == digits or not 0 < len(digits) <= 16 or not set(digits) <= set("0123456789abcdef"):
        problems.append(f"{where}: {_shown(value)} is not a number like 0x1f")
        return 0
    return int(digits, 16)


def _check(
    data: Mapping[str, Any], where: str, wanted: Mapping[str, Any], problems: list[str]
) -> None:
    """Compare the keys of an object, and the types of its values, with those that are wanted."""
    problems += (f"{where}: {_shown(key)} is unknown" for key in data.keys() - wanted.keys())
    problems += (f"{where}: {key} is missing" for key in wanted if key not in data)
    for key, type in wanted.items():
        if key in data and not _is(data[key], type):
            problems.append(f"{where}: {key} is {_shown(data[key])}")


def _is(value: Any, type: Any) -> bool:
    return isinstance(value, type) and not (type is int and isinstance(value, bool))


def _shown(value: Any) -> str:
    """A value of a file, short enough for a message."""
    text = (
        repr(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
    )
    return text if len(text) <= 60 else f"{text[:60]}…"
