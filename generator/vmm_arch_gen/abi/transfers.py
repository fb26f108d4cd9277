"""The calls that move state: which names in the facts read or write the same thing.

``KVM_GET_REGS`` and ``KVM_SET_REGS`` do, ``WHvGetPartitionProperty`` and ``WHvSetPartitionProperty``;
and ``KVM_GET_XSAVE2`` is a newer form of the call that ``KVM_SET_XSAVE`` writes for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from vmm_arch_gen.abi.model import Abi

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_VERSION = re.compile(r"_?\d+$")


@dataclass(frozen=True)
class Transfer:
    """What some calls read and write."""

    reads: tuple[str, ...]
    """Several if there are newer forms of a call; none if nothing reads what is written."""
    writes: tuple[str, ...]
    header: str

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.reads, *self.writes)


def transfers(abi: Abi) -> list[Transfer]:
    """Everything that a call of the interface writes, each with the calls that read it.

    What can be read but not written is left out: it is a fact about the host, or a list of what
    there is.
    """
    found: dict[str, tuple[list[str], list[str], str]] = {}
    for name, header in _calls(abi):
        words = list(_WORD.finditer(name))
        verb = next((word for word in words if word[0].lower() in ("get", "set")), None)
        if verb is None:
            continue
        subject = _VERSION.sub("", f"{name[: verb.start()]}{name[verb.end() :]}")
        reads, writes, _ = found.setdefault(subject, ([], [], header))
        (reads if verb[0].lower() == "get" else writes).append(name)
    return [
        Transfer(tuple(reads), tuple(writes), header)
        for reads, writes, header in found.values()
        if writes
    ]


def _calls(abi: Abi) -> Iterator[tuple[str, str]]:
    """The names of calls, each with its header."""
    for ioctl in abi.ioctls:
        yield ioctl.name, ioctl.header
    for function in abi.functions:
        yield function.name, function.header
