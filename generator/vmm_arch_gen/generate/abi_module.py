"""The raw ABI module of one target, as the template sees it.

Reads a VerifiedAbi. Gives the values that templates/vmm_arch/abi/target.py.j2 renders. Writes
nothing.
"""

from __future__ import annotations

import keyword
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

from vmm_arch_gen.abi.model import Constant, Enum, FunctionPrototype, Ioctl, VerifiedAbi
from vmm_arch_gen.abi.types import Array, Function, Named, Type, declare
from vmm_arch_gen.diagnostics import Problem, refuse
from vmm_arch_gen.generate.ctypes_records import CtypesRecord, Inexpressible, Translator
from vmm_arch_gen.generate.names import python_name
from vmm_arch_gen.generate.values import Values

T = TypeVar("T")


@dataclass(frozen=True)
class Alias:
    """A typedef or an enum type: something to make objects and arrays of."""

    name: str
    expression: str
    callback: tuple[str, ...]
    """For a pointer to a function, its result and arguments."""


@dataclass(frozen=True)
class Argument:
    type: str
    c: str
    """As C declares it."""


@dataclass(frozen=True)
class Prototype:
    name: str
    result: str
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
    enums: tuple[Enum, ...]
    ioctls: tuple[Ioctl, ...]
    records: tuple[CtypesRecord, ...]
    """Each behind those that it contains."""
    types: tuple[Alias, ...]
    """Typedefs and enum types."""
    prototypes: tuple[tuple[str, tuple[Prototype, ...]], ...]
    """By header."""


def abi_module(abi: VerifiedAbi, values: Values | None = None) -> AbiModule:
    """Translate a target's facts; InputError names what Python cannot express."""
    translator = Translator(abi, values)
    problems: list[Problem] = []

    def inexpressible(error: Inexpressible) -> None:
        remedy = "report it with the header: the generator has to learn this"
        problems.append(Problem(abi.target, str(error), remedy))

    records = []
    for key in _containment_order(abi):
        try:
            records.append(translator.record(key))
        except Inexpressible as error:
            inexpressible(error)
    refuse(problems)
    types = [
        Alias(python_name(key), translator.scalar(abi.enums[key].underlying).expression, ())
        for key in sorted(abi.enums)
        if "<" not in key
    ]
    taken = {record.name for record in records} | {alias.name for alias in types}
    for name, typedef in sorted(abi.typedefs.items()):
        if python_name(name) in taken:  # typedef struct x x: one thing
            if not isinstance(typedef.type, Named) or python_name(typedef.type.name) != name:
                problems.append(_clash(abi.target, name))
        elif translator.has_objects(typedef.type):
            types.append(_alias(translator, python_name(name), typedef.type))
    prototypes = [
        _prototype(translator, function)
        for function in sorted(abi.functions, key=lambda f: (f.header, f.name))
    ]
    refuse(problems)
    module = AbiModule(
        target=abi.target,
        origin=abi.origin,
        imports=_imports(records, types, prototypes),
        makers=_makers(records),
        constants=tuple(
            _by(sorted(abi.constants, key=lambda c: (c.header, c.name)), lambda c: c.header)
        ),
        enums=tuple(abi.enums[key] for key in sorted(abi.enums)),
        ioctls=abi.ioctls,
        records=tuple(records),
        types=tuple(types),
        prototypes=tuple(_by(prototypes, lambda p: p.header)),
    )
    refuse(_clashes(module))
    return module


def _by(items: Iterable[T], key: Callable[[T], str]) -> Iterator[tuple[str, tuple[T, ...]]]:
    for group, members in groupby(items, key=key):
        yield group, tuple(members)


def _containment_order(abi: VerifiedAbi) -> Iterator[str]:
    """The records by name, but each behind those that it contains."""
    done: set[str] = set()

    def visit(key: str) -> Iterator[str]:
        if key in done:
            return
        done.add(key)
        for member in abi.records[key].members:
            type: Type = member.type
            while isinstance(type, Array | Named):
                if isinstance(type, Array):
                    type = type.of
                elif type.name in abi.records:
                    yield from visit(type.name)
                    break
                elif type.name in abi.typedefs:
                    type = abi.typedefs[type.name].type
                else:
                    break
        yield key

    for key in sorted(abi.records, key=python_name):
        yield from visit(key)


def _alias(translator: Translator, name: str, type: Type) -> Alias:
    callback = translator.callback(type)
    return Alias(name, "" if callback else translator.alias(type), callback)


def _prototype(translator: Translator, function: FunctionPrototype) -> Prototype:
    assert isinstance(function.type, Function)
    arguments = tuple(
        Argument(translator.argument(type), declare(type, name))
        for name, type in function.type.parameters
    )
    result = translator.argument(function.type.result)
    return Prototype(function.name, result, arguments, function.header)


def _imports(
    records: Sequence[CtypesRecord],
    types: Iterable[Alias],
    prototypes: Iterable[Prototype],
) -> tuple[str, ...]:
    """The names of ctypes that the module uses."""
    texts = []
    for alias in types:
        texts += [alias.expression, *alias.callback, "CFUNCTYPE" if alias.callback else ""]
    for record in records:
        texts += [annotation for _, annotation in record.annotations]
    for prototype in prototypes:
        texts += [prototype.result, *(argument.type for argument in prototype.arguments)]
    words = set(" ".join(texts).translate({ord(c): " " for c in "()[],*"}).split())
    ours = (w for w in words if w in ("Array", "CFUNCTYPE") or w.startswith("c_"))
    return tuple(sorted(ours, key=_import_order))


def _makers(records: Sequence[CtypesRecord]) -> tuple[str, ...]:
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
