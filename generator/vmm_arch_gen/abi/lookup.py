"""Finds members of records by the names that C code uses: through typedefs and unnamed members."""

from __future__ import annotations

from vmm_arch_gen.abi.model import Abi, Member
from vmm_arch_gen.abi.types import Named, Type


def record_of(abi: Abi, type: Type) -> str | None:
    """The key of the record that a type is, whatever it is called; None if it is not a record."""
    while isinstance(type, Named):
        if type.name in abi.records:
            return type.name
        if type.name not in abi.typedefs:
            return None
        type = abi.typedefs[type.name].type
    return None


def find_member(abi: Abi, key: str, name: str) -> Member | None:
    """The member that ``record.name`` means in C, which may lie in an unnamed one."""
    for member in abi.records[key].members:
        if member.name == name:
            return member
        inner = record_of(abi, member.type)
        if not member.name and inner and (found := find_member(abi, inner, name)):
            return found
    return None
