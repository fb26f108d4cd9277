"""The raw ABI module of one target, as the template sees it.

Reads a VerifiedAbi. Gives the values that templates/vmm_arch/abi/target.py.j2 renders. Writes
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count, groupby
from typing import TypeVar

from vmm_arch_gen.abi.expressions import Offset, uses
from vmm_arch_gen.abi.layout import Layouts
from vmm_arch_gen.abi.model import Constant, Enum, FunctionPrototype, Ioctl, String, VerifiedAbi
from vmm_arch_gen.abi.samples import Sampler
from vmm_arch_gen.abi.types import Function, declare
from vmm_arch_gen.diagnostics import Problem, refuse
from vmm_arch_gen.generate.ctypes_records import CtypesRecord, ctypes_records
from vmm_arch_gen.generate.ctypes_types import POINTER, SHORT, CType, Local, Types
from vmm_arch_gen.generate.macro_functions import PythonFunction, python_function
from vmm_arch_gen.generate.names import TypeNames, abi_names, type_names
from vmm_arch_gen.generate.record_fields import MAKERS
from vmm_arch_gen.generate.values import Values

T = TypeVar("T")

_OPERATORS = ("CType", "as_signed", "in_range", "offset_of", "quotient", "remainder", "shift_count")
"""What templates/vmm_arch/abi/macros.py has."""


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
    operators: tuple[str, ...]
    """From templates/vmm_arch/abi/macros.py."""
    local: Local
    """What of these is imported under another name, since C has the name."""
    constants: tuple[tuple[str, tuple[Constant, ...]], ...]
    """By header."""
    strings: tuple[String, ...]
    enums: tuple[Enum, ...]
    ioctls: tuple[Ioctl, ...]
    records: tuple[CtypesRecord, ...]
    """Each after those that it contains."""
    types: tuple[Alias, ...]
    """Typedefs and enum types."""
    functions: tuple[tuple[str, tuple[PythonFunction, ...]], ...]
    """Macros with arguments, by header."""
    prototypes: tuple[tuple[str, tuple[Prototype, ...]], ...]
    """By header."""


def abi_module(abi: VerifiedAbi, values: Values | None = None) -> AbiModule:
    """Translate a target's facts; InputError names what Python cannot express."""
    types = Types(abi)
    records = ctypes_records(abi, types, values or Values({}))
    names = type_names(abi)
    aliases = [
        Alias(name, types.scalar(abi.enums[key].underlying))
        for key, name in sorted(names.enums.items())
    ]
    for key, name in names.typedefs.items():
        type = abi.typedefs[key].type
        if types.has_objects(type):
            aliases.append(Alias(name, types.alias(type), types.callback(type)))
    prototypes = [
        _prototype(types, function)
        for function in sorted(abi.functions, key=lambda f: (f.header, f.name))
    ]
    functions = _functions(abi, names)
    module = AbiModule(
        target=abi.target,
        origin=abi.origin,
        imports=_imports(records, aliases, prototypes, functions),
        makers=_makers(records),
        operators=_operators(functions),
        local=_local(abi, names, records),
        constants=tuple(
            _by(sorted(abi.constants, key=lambda c: (c.header, c.name)), lambda c: c.header)
        ),
        strings=abi.strings,
        enums=tuple(abi.enums[key] for key in sorted(abi.enums)),
        ioctls=abi.ioctls,
        records=records,
        types=tuple(aliases),
        functions=tuple(_by(functions, lambda f: f.header)),
        prototypes=tuple(_by(prototypes, lambda p: p.header)),
    )
    refuse(_clashes(abi, module))
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


def _functions(abi: VerifiedAbi, names: TypeNames) -> list[PythonFunction]:
    """The macros with arguments, by header and name."""
    sampler = Sampler(Layouts.of_abi(abi))
    examples: dict[str, str] = {}
    for macro in abi.macros:
        for use in uses(macro.value).values():
            if isinstance(use, Offset) and use.record not in examples:
                paths = [path for path, _ in sampler.members(use.record)]
                examples[use.record] = next(path for path in paths if not _has_parts(path, paths))
    taken = set(names.records.values()) | set(_OPERATORS) | {"int", "sizeof"}
    listed = sorted(abi.macros, key=lambda m: (m.header, m.name))
    return [python_function(macro, names.records, taken, examples) for macro in listed]


def _has_parts(path: str, paths: Iterable[str]) -> bool:
    """Whether a member is a record or an array, of whose members there are paths, too."""
    return any(other.startswith((f"{path}.", f"{path}[")) for other in paths)


def _operators(functions: Iterable[PythonFunction]) -> tuple[str, ...]:
    """The names of templates/vmm_arch/abi/macros.py that the module uses."""
    names = {name for function in functions for name in function.imports} - {"sizeof"}
    return tuple(sorted(names, key=_import_order))


def _imports(
    records: Iterable[CtypesRecord],
    aliases: Iterable[Alias],
    prototypes: Iterable[Prototype],
    functions: Iterable[PythonFunction],
) -> tuple[str, ...]:
    """The names of ctypes that the module uses."""
    named = [type for alias in aliases for type in alias.callback or (alias.type,)]
    for prototype in prototypes:
        named += [prototype.result, *(argument.type for argument in prototype.arguments)]
    names = {type.name for type in named if type.plain or type == POINTER}
    names.update(
        name for record in records for _, type in record.members for name in type.annotated_with
    )
    if any(alias.callback for alias in aliases):
        names.add("CFUNCTYPE")
    if any("sizeof" in function.imports for function in functions):
        names.add("sizeof")
    return tuple(sorted(names - {"Rows"}, key=_import_order))


def _makers(records: Iterable[CtypesRecord]) -> tuple[str, ...]:
    """The names of templates/vmm_arch/abi/records.py that the module uses."""
    names = {record.base for record in records}
    names.update(name for record in records for field in record.fields for name in field.makers)
    names.update(
        "Rows" for record in records for _, type in record.members if "Rows" in type.annotated_with
    )
    return tuple(sorted(names, key=_import_order))


def _import_order(name: str) -> tuple[int, str, int]:
    """As import sorters have it: constants, classes, the rest; c_int8 before c_int16."""
    stem = name.rstrip("0123456789")
    rank = 0 if name.isupper() else 1 if name[0].isupper() else 2
    return rank, stem, int(name.removeprefix(stem) or 0)


def _local(abi: VerifiedAbi, names: TypeNames, records: Iterable[CtypesRecord]) -> dict[str, str]:
    """Other names for what C's names, and in class bodies members, would hide."""
    known = {name for name, _ in abi_names(abi)}
    known.update(names.enums.values(), names.typedefs.values())
    members = {name for record in records for name, _ in record.members}
    ours = {*SHORT, *SHORT.values(), *MAKERS, "Array", "CFUNCTYPE", "Rows", "c_void_p", "sizeof"}
    ours.update(record.base for record in records)
    return {
        name: next(
            f"{'_' * n}{name}" for n in count(1) if f"{'_' * n}{name}" not in known | members
        )
        for name in sorted(ours)
        if name in known or (name in members and name in MAKERS)
    }


def _clashes(abi: VerifiedAbi, module: AbiModule) -> Iterator[Problem]:
    for name in sorted({name for name, _ in abi_names(abi)}.intersection(module.operators)):
        what = "is a name that the generated module needs for itself"
        yield Problem(f"{module.target}: {name}", what, "report it with the header")
