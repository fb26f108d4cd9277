"""What of a target's headers did not become a fact, and why, as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

from vmm_arch_gen.abi.model import Abi, Omission
from vmm_arch_gen.diagnostics import Problem
from vmm_arch_gen.targets import Target

Omitted: TypeAlias = Literal["not", "counted", "listed"]
"""How what was left out is reported."""

_NAMES = 3
"""As many are named of those that share a reason."""


def left_out(abi: Abi, target: Target, report: Omitted) -> Iterator[str]:
    """What was left out of the target's headers and why.

    Only counted, it is what is in the headers that the target names or that are a user's own, and
    how much there is in the others.
    """
    match report:
        case "listed":
            for omission in abi.omissions:
                yield f"  {omission.header}: {omission.kind} {omission.name}: {omission.reason}"
        case "counted":
            own = [omission for omission in abi.omissions if _is_own(omission.header, target)]
            for (kind, reason), names in _by_reason(own):
                named = ", ".join(names[:_NAMES]) + ", …" * (len(names) > _NAMES)
                plural = "s" * (len(names) != 1)
                yield f"  {len(names)} {kind}{plural} left out: {reason} ({named})"
            if others := len(abi.omissions) - len(own):
                yield f"  {others} left out of headers that these include; --verbose lists all"


def empty(abi: Abi, target: Target) -> Iterator[Problem]:
    """That there are no facts at all, and what was left out instead."""
    if abi.constants or abi.enums or abi.functions or abi.ioctls or abi.records or abi.typedefs:
        return
    omitted = "; ".join(line.strip() for line in left_out(abi, target, "counted"))
    what = f"declares nothing that could become a fact{': ' * bool(omitted)}{omitted}"
    remedy = "name a header that declares something, or define the macro that it asks for"
    yield Problem(", ".join(target.headers), what, remedy)


def _is_own(header: str, target: Target) -> bool:
    return header in target.headers or any((f / header).is_file() for f in target.include)


def _by_reason(omissions: Sequence[Omission]) -> list[tuple[tuple[str, str], list[str]]]:
    """Names by kind and reason, those first that are the most."""
    groups: dict[tuple[str, str], list[str]] = {}
    for omission in omissions:
        reason = omission.reason.partition(":")[0]
        groups.setdefault((omission.kind, reason), []).append(omission.name)
    return sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
