"""The raw ABI module of one target, as the template sees it.

Reads a VerifiedAbi. Gives the values that templates/vmm_arch/abi/target.py.j2 renders. Writes
nothing.
"""

from __future__ import annotations

import keyword
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

from vmm_arch_gen.abi.model import Constant, Enum, FunctionPrototype, Ioctl, String, VerifiedAbi
from vmm_arch_gen.abi.types import Function, Named, declare
from vmm_arch_gen.diagnostics import Problem, refuse
from vmm_arch_gen.generate.ctypes_records import CtypesRecord, ctypes_records
from vmm_arch_gen.generate.ctypes_types import CType, Types
from vmm_arch_gen.generate.names import python_name
from vmm_arch_gen.generate.values import Values

T = TypeVar("T")


@dataclass(frozen=True)
class Alias:
    """A typedef or an enum type: something to make objects and arrays of."""

    name: str
    type: CType
    callback: tuple[CType, ...] = ()
    """For a pointer to a function, its result and arguments."""


@dataclass(frozen=True)
class Argument:
    type: CType
    c: str
    """As C declares it."""


@dataclass(frozen=True)
class Prototype:
    name: str
    result: CType
    arguments: tuple[Argument, ...]
    header: str


@dataclass(frozen=True)
class AbiModule:
    """What a raw ABI module says."""

    target: str
    origin: str
    imports: tuple[str, ...]
    """From ctypes."""
    makers: tuple[str, ...]
    """From templates/vmm_arch/abi/records.py."""
    constants: tuple[tuple[str, tuple[Constant, ...]], ...]
    """By header."""
    strings: tuple[String, ...]
    enums: tuple[Enum, ...]
    ioctls: tuple[Ioctl, ...]
    records: tuple[CtypesRecord, ...]
    """Each after those that it contains."""
    types: tuple[Alias, ...]
    """Typedefs and enum types."""
    prototypes: tuple[tuple[str, tuple[Prototype, ...]], ...]
    """By header."""


def abi_module(abi: VerifiedAbi, values: Values | None = None) -> AbiModule:
    """Translate a target's facts; InputError names what Python cannot express."""
    types = Types(abi)
    records = ctypes_records(abi, types, values or Values({}))
    problems: list[Problem] = []
    aliases = [
        Alias(python_name(key), types.scalar(abi.enums[key].underlying))
        for key in sorted(abi.enums)
        if "<" not in key
    ]
    taken = {record.name for record in records} | {alias.name for alias in aliases}
    for name, typedef in sorted(abi.typedefs.items()):
        if python_name(name) in taken:  # typedef struct x x: one thing
            if not isinstance(typedef.type, Named) or python_name(typedef.type.name) != name:
                problems.append(_clash(abi.target, name))
        elif types.has_objects(typedef.type):
            type, callback = types.alias(typedef.type), types.callback(typedef.type)
            aliases.append(Alias(python_name(name), type, callback))
    prototypes = [
        _prototype(types, function)
        for function in sorted(abi.functions, key=lambda f: (f.header, f.name))
    ]
    refuse(problems)
    module = AbiModule(
        target=abi.target,
        origin=abi.origin,
        imports=_imports(records, aliases, prototypes),
        makers=_makers(records),
        constants=tuple(
            _by(sorted(abi.constants, key=lambda c: (c.header, c.name)), lambda c: c.header)
        ),
        strings=abi.strings,
        enums=tuple(abi.enums[key] for key in sorted(abi.enums)),
        ioctls=abi.ioctls,
        records=records,
        types=tuple(aliases),
        prototypes=tuple(_by(prototypes, lambda p: p.header)),
    )
    refuse(_clashes(module))
    return module


def _by(items: Iterable[T], key: Callable[[T], str]) -> Iterator[tuple[str, tuple[T, ...]]]:
    for group, members in groupby(items, key=key):
        yield group, tuple(members)


def _prototype(types: Types, function: FunctionPrototype) -> Prototype:
    assert isinstance(function.type, Function)
    arguments = tuple(
        Argument(types.argument(type), declare(type, name))
        for name, type in function.type.parameters
    )
    result = types.argument(function.type.result)
    return Prototype(function.name, result, arguments, function.header)


def _imports(
    records: Iterable[CtypesRecord],
    aliases: Iterable[Alias],
    prototypes: Iterable[Prototype],
) -> tuple[str, ...]:
    """The names of ctypes that the module uses."""
    names: set[str] = set()
    for record in records:
        names.update(name for _, type in record.members for name in type.annotated_with)
    for alias in aliases:
        names.update(type.name for type in alias.callback or (alias.type,))
        names.update(["CFUNCTYPE"] if alias.callback else [])
    for prototype in prototypes:
        names.update(
            type.name for type in (prototype.result, *(a.type for a in prototype.arguments))
        )
    ours = (n for n in names if n in ("Array", "CFUNCTYPE") or n.startswith("c_"))
    return tuple(sorted(ours, key=_import_order))


def _makers(records: Iterable[CtypesRecord]) -> tuple[str, ...]:
    """The names of templates/vmm_arch/abi/records.py that the module uses."""
    names = {record.base for record in records}
    names.update(name for record in records for field in record.fields for name in field.makers)
    return tuple(sorted(names, key=_import_order))


def _import_order(name: str) -> tuple[int, str, int]:
    """As import sorters have it: constants, classes, the rest; c_int8 before c_int16."""
    stem = name.rstrip("0123456789")
    rank = 0 if name.isupper() else 1 if name[0].isupper() else 2
    return rank, stem, int(name.removeprefix(stem) or 0)


def _clash(target: str, name: str) -> Problem:
    what = "is the name of more than one thing in Python"
    return Problem(f"{target}: {name}", what, "report it with the header: C keeps them apart")


def _clashes(module: AbiModule) -> Iterator[Problem]:
    names = [c.name for _, constants in module.constants for c in constants]
    names += [name for enum in module.enums for name, _ in enum.enumerators]
    names += [string.name for string in module.strings]
    names += [ioctl.name for ioctl in module.ioctls]
    names += [record.name for record in module.records]
    names += [alias.name for alias in module.types]
    reserved = {
        *module.imports,
        *module.makers,
        "PROTOTYPES",
        "annotations",
        "bool",
        "bytes",
        "float",
        "int",
    }
    for name, count in Counter(names).items():
        if count > 1:
            yield _clash(module.target, name)
        if name in reserved or keyword.iskeyword(name):
            what = "is a name that the generated module needs for itself"
            yield Problem(f"{module.target}: {name}", what, "report it with the header")
