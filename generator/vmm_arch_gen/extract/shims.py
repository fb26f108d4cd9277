"""Declarations of shims: they are facts as far as the target's own headers need them.

A shim may serve several sets of headers, as mingw-w64's and Microsoft's, of which one lacks what
the other needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vmm_arch_gen.abi.model import Abi
from vmm_arch_gen.abi.types import Array, Function, Named, Pointer, Type


def without_unneeded(abi: Abi) -> Abi:
    """The facts without the types of shims that no declaration of another header uses."""
    needed = _needed(abi)

    def keep(key: str, header: str) -> bool:
        owner = key.partition(".")[0]  # an unnamed type belongs to the record that it is in
        names = {owner, owner.rpartition(" ")[2], f"struct {owner}", f"union {owner}", key}
        return not header.startswith("shim:") or bool(names & needed)

    records = {key: record for key, record in abi.records.items() if keep(key, record.header)}
    return replace(
        abi,
        enums={key: enum for key, enum in abi.enums.items() if keep(key, enum.header)},
        records=records,
        typedefs={key: of for key, of in abi.typedefs.items() if keep(key, of.header)},
        layouts={key: abi.layouts[key] for key in records},
    )


def _needed(abi: Abi) -> set[str]:
    """The names of the types that declarations of other headers than shims use."""
    uses: dict[str, set[str]] = {}
    for key, record in abi.records.items():
        uses[key] = {name for member in record.members for name in _named(member.type)}
    for key, typedef in abi.typedefs.items():
        uses[key] = set(_named(typedef.type))
    headers = {key: record.header for key, record in abi.records.items()}
    headers |= {key: typedef.header for key, typedef in abi.typedefs.items()}
    headers |= {key: enum.header for key, enum in abi.enums.items()}
    new = {key for key, header in headers.items() if not header.startswith("shim:")}
    for function in abi.functions:
        new |= set(_named(function.type)) if not function.header.startswith("shim:") else set()
    for ioctl in abi.ioctls:
        new |= set(_named(ioctl.argument)) if ioctl.argument else set()
    found: set[str] = set()
    while new := new - found:
        found |= new
        new = {used for key in new for used in uses.get(key, ())}
    return found


def _named(type: Type) -> Iterator[str]:
    match type:
        case Named(name):
            yield name
        case Pointer(inner) | Array(inner):
            yield from _named(inner)
        case Function(result, parameters):
            yield from _named(result)
            for _, of in parameters:
                yield from _named(of)
