"""The vocabulary of a CPU's state: its elements in groups, each with its value after a reset."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vmm_arch_gen.arch.sources import SourceFile, read_python
from vmm_arch_gen.arch.tables import Composite, read_table
from vmm_arch_gen.diagnostics import did_you_mean, refuse


@dataclass(frozen=True)
class CompositeType:
    """A type of values with several parts: a segment's selector, base, limit and attributes."""

    name: str
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Element:
    """One piece of a vCPU's state."""

    name: str
    group: str
    reset: int | tuple[int, ...]
    """Its value after a hardware reset, or that of each of its parts."""
    composite: CompositeType | None
    """What its parts are; None for a plain number."""


@dataclass(frozen=True)
class Vocabulary:
    elements: Mapping[str, Element]
    composites: Mapping[str, CompositeType]
    has_bits: bool
    """Whether the file names the bits of elements, in its table BITS."""
    source: SourceFile


def read_vocabulary(templates: Path, cpu: str) -> Vocabulary:
    """Read the elements of a CPU's state; InputError says everything that is wrong."""
    source = read_python(templates, "vmm_arch", cpu, "vocabulary.py")
    composites = {type.name: type for type in _composite_types(source)}
    elements = _elements(source, composites)
    return Vocabulary(elements, composites, _has_bits(source, elements), source)


def _has_bits(source: SourceFile, elements: Mapping[str, Element]) -> bool:
    """Whether there is a table BITS; InputError says everything that is wrong with it."""
    if not any(_assigns(node, "BITS") for node in source.tree.body):
        return False
    table = read_table(source, "BITS")
    problems = []
    for name, bits in table.entries.items():
        what, remedy = "", 'write {"element": {"NAME": 0, "OTHER": 5}}, bit numbers by their names'
        if name not in elements:
            what = f"there is no element {name}"
            remedy = f"{did_you_mean(name, list(elements))}see STATE"
        elif not isinstance(bits, Mapping) or not all(isinstance(b, int) for b in bits.values()):
            what = f"the bits of {name} are not numbers by their names"
        elif len(set(map(str, bits.values()))) < len(bits):
            what = f"two bits of {name} have the same number"
        if what:
            problems.append(table.complaint(name, what=what, remedy=remedy))
    refuse(problems)
    return True


def _assigns(node: ast.stmt, name: str) -> bool:
    match node:
        case ast.Assign(targets=[ast.Name(id=target)]) | ast.AnnAssign(target=ast.Name(id=target)):
            return target == name
    return False


def _composite_types(source: SourceFile) -> Iterator[CompositeType]:
    """The types of values with several parts, which are named tuples."""
    for node in source.tree.body:
        match node:
            case ast.ClassDef(name=name, bases=[ast.Name(id="NamedTuple")], body=body):
                fields = (s.target for s in body if isinstance(s, ast.AnnAssign))
                parts = tuple(field.id for field in fields if isinstance(field, ast.Name))
                yield CompositeType(name, parts)


def _elements(source: SourceFile, composites: Mapping[str, CompositeType]) -> dict[str, Element]:
    table = read_table(source, "STATE", composites)
    elements: dict[str, Element] = {}
    problems = []
    for group, members in table.entries.items():
        if not isinstance(members, Mapping) or not members:
            what = f"the group {group} is not a dictionary of elements"
            remedy = 'write {"element": its value after a reset}'
            problems.append(table.complaint(group, what=what, remedy=remedy))
            continue
        for name, reset in members.items():
            what, remedy = "", ""
            composite = composites[reset.type] if isinstance(reset, Composite) else None
            parts = reset.parts if isinstance(reset, Composite) else (reset,)
            numbers = tuple(part for part in parts if isinstance(part, int))
            if name in elements:
                what = f"{name} is an element of {elements[name].group} already"
                remedy = "give each element once"
            elif composite is not None and len(parts) != len(composite.parts):
                what = f"{name} has {len(parts)} parts"
                remedy = f"write {composite.name}({', '.join(composite.parts)})"
            elif len(numbers) < len(parts):
                what = f"the value of {name} is not a number"
                kinds = " or ".join(f"{kind.name}(…)" for kind in composites.values())
                remedy = "write its value after a reset: a number" + (f", or {kinds}" * bool(kinds))
            if what:
                problems.append(table.complaint(group, name, what=what, remedy=remedy))
                continue
            elements[name] = Element(name, group, numbers if composite else numbers[0], composite)
    refuse(problems)
    return elements
