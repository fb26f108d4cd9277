"""Paths into a record, as C code writes them: ``gdt.base``, ``gprs[NVMM_X64_GPR_RAX]``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vmm_arch_gen.abi.lookup import find_member, record_of
from vmm_arch_gen.abi.model import Abi
from vmm_arch_gen.abi.types import Array, Named, Type

_STEP = re.compile(r"(\w+)((?:\[\w+\])*)")


@dataclass(frozen=True)
class Step:
    """A member, and the elements of it if it is an array."""

    name: str
    indices: tuple[str, ...]
    """Numbers, or constants of the headers."""


def steps(path: str) -> tuple[Step, ...] | None:
    """The steps of a path; None if it is not one."""
    found = [_STEP.fullmatch(text) for text in path.split(".")]
    if not all(found):
        return None
    return tuple(
        Step(match[1], tuple(re.findall(r"\w+", match[2]))) for match in found if match is not None
    )


def index_value(abi: Abi, index: str) -> int | None:
    """What an index is: a number, or a constant of the headers; None if there is no such."""
    if index.isdecimal():
        return int(index)
    for constant in abi.constants:
        if constant.name == index:
            return constant.value if isinstance(constant.value, int) else None
    for enum in abi.enums.values():
        for name, value in enum.enumerators:
            if name == index:
                return value
    return None


def complaint(abi: Abi, key: str, path: str) -> str | None:
    """What a record does not have, of a path into it; None if it has all of it."""
    record: str | None = key
    where = key
    walked = steps(path)
    if walked is None:
        return f"{path!r} is not a path of members such as gdt.base or gprs[0]"
    for step in walked:
        if record is None or record not in abi.records:
            return f"{where} has no members" if where != key else f"there is no record {key}"
        member = find_member(abi, record, step.name)
        if member is None:
            return f"{record} has no member {step.name}"
        where = f"{record}.{step.name}"
        of: Type = member.type
        for index in step.indices:
            of = _resolved(abi, of)
            value = index_value(abi, index)
            if not isinstance(of, Array):
                return f"{where} is not an array"
            if value is None:
                return f"no such constant in the headers: {index}"
            if not 0 <= value < (of.count or 0):
                return f"{where} has {of.count or 0} elements, and {index} is {value}"
            of = of.of
        if isinstance(_resolved(abi, of), Array):
            return f"{where} is an array: name an element of it, as in {step.name}[0]"
        record = record_of(abi, of)
    if record is not None:
        return f"{where} is a record: name a member of it"
    return None


def _resolved(abi: Abi, type: Type) -> Type:
    while isinstance(type, Named) and type.name in abi.typedefs:
        type = abi.typedefs[type.name].type
    return type
