"""The table of targets, ``headers/targets.toml``, as values.

A family is one target for each of its CPUs. A column that it does not have is the CPU's, or the
system's. Each table is checked by itself, so that an error names the one that is wrong.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar, get_args

from vmm_arch_gen.abi.model import BitFieldRules, DataModel, IoctlRules
from vmm_arch_gen.diagnostics import InputError, Problem, did_you_mean, refuse


@dataclass(frozen=True)
class Package:
    """The pinned Python package whose headers and compiler are the default."""

    name: str
    version: str
    include: str
    """The folder of its include folders, relative to the package."""


@dataclass(frozen=True)
class DebianPackage:
    """A pinned package of Debian's that headers come from; ``[packages.NAME]`` explains it."""

    name: str
    suite: str
    version: str
    sha256: str
    include: str
    unpack: tuple[str, ...]
    architecture: str = "amd64"


@dataclass(frozen=True)
class Folder:
    """A folder of headers: below those of the pinned Python package, or in a Debian package."""

    path: str
    package: DebianPackage | None = None


@dataclass(frozen=True)
class Origin:
    """Where a set of headers says its version."""

    name: str
    macros: tuple[str, ...]
    """Their values are the parts of the version."""
    header: str = ""
    """Which defines the macros; empty if the compiler has them built in."""


@dataclass(frozen=True)
class Target:
    """One family on one CPU; ``headers/targets.toml`` explains the columns."""

    name: str
    family: str
    cpu: str
    system: str
    triple: str
    cpu_macro: str
    headers: tuple[str, ...]
    folders: tuple[Folder, ...]
    model: DataModel
    ioctl_rules: IoctlRules = "generic"
    about: str = ""
    origin: Origin | None = None
    """None for headers without a version."""
    include: tuple[Path, ...] = ()
    """A user's own folders of headers, which are searched before those of the package."""
    libc: tuple[Folder, ...] = ()
    """The C library's folders, which are searched last; empty unless headers are a user's own."""
    defines: tuple[str, ...] = ()
    """Macros that are defined when reading and when proving: NAME or NAME=VALUE."""
    prelude: str = ""
    shims: Path | None = None
    """A folder of headers that are found first: beside the table, else beside the package's."""
    proof: tuple[str, ...] = ()
    backend: bool = False
    always: bool = False
    any_case: bool = False

    @property
    def packages(self) -> list[DebianPackage]:
        """The Debian packages that its headers come from."""
        found = (folder.package for folder in self.folders if folder.package)
        return list(dict.fromkeys(found))


Columns = Mapping[str, Any]
"""Some columns, as the fields of a :class:`Target`."""

_REQUIRED = {
    "triple": "triple",
    "cpu_macro": "cpu_macro",
    "headers": "headers",
    "folders": "folders",
    "model": "data_model",
}
"""The fields that a target cannot do without, and their columns."""


@dataclass(frozen=True)
class TargetTable:
    package: Package
    systems: Mapping[str, Columns]
    """What is the same for all targets of a system."""
    cpus: Mapping[tuple[str, str], Columns]
    """By CPU and system: what is the same for all targets there."""
    targets: Mapping[str, Target]

    @property
    def always(self) -> list[str]:
        """The targets that are generated whatever is asked for."""
        return [name for name, target in self.targets.items() if target.always]

    def select(self, names: Iterable[str]) -> list[Target]:
        """The named targets, or all of them if none is named."""
        problems = [
            Problem(
                name,
                "there is no such target",
                f"{did_you_mean(name, list(self.targets))}targets: {', '.join(self.targets)}",
            )
            for name in names
            if name not in self.targets
        ]
        if problems:
            raise InputError(*problems)
        wanted = set(names)
        return [target for name, target in self.targets.items() if not wanted or name in wanted]

    def target(self, family: str, cpu: str, system: str, columns: Columns) -> Target:
        """A target with these columns, and the others as its CPU and system have them.

        TypeError says what there is not.
        """
        if (cpu, system) not in self.cpus:
            there = ", ".join(known for known, of in self.cpus if of == system)
            systems = ", ".join(sorted({of for _, of in self.cpus}))
            known = f"the CPUs are {there}" if there else f"the systems are {systems}"
            raise TypeError(f"there is no CPU {cpu!r} of {system!r}: {known}")
        columns = {**self.systems.get(system, {}), **self.cpus[cpu, system], **columns}
        if missing := [column for field, column in _REQUIRED.items() if field not in columns]:
            raise TypeError(f"has no {', '.join(missing)}")
        if "include" not in columns:
            columns.pop("libc", None)
        if columns.get("backend") and "_" in family:
            raise TypeError("a family with a backend needs a name without '_'")
        return Target(f"{family}_{cpu}", family, cpu, system, **columns)


def largest_first(targets: Sequence[Target], abi: Path) -> list[Target]:
    """The targets by the size of their .abi files, so that the last one to be done is a small one."""
    files = {target.name: abi / f"{target.name}.abi" for target in targets}
    sizes = {name: path.stat().st_size if path.is_file() else 0 for name, path in files.items()}
    return sorted(targets, key=lambda target: -sizes[target.name])


def load_targets(path: Path, more: Path | None = None) -> TargetTable:
    """Read the table, and a user's next to it; InputError names every entry that is wrong."""
    files = [_File(path, path.parent, _read(path, "restore it from the repository"))]
    if more:
        files.append(_File(more, path.parent, _read(more, "write it")))
    loading = _Loading()
    # By what refers to what: a user's families may name the package's origins and CPUs.
    for read in (loading.read_sources, loading.read_defaults, loading.read_families):
        for file in files:
            read(file)
        refuse(loading.problems)
    return loading.table()


def _read(path: Path, remedy: str) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(Problem(str(path), f"cannot be read: {error}", remedy)) from None


@dataclass(frozen=True)
class _File:
    """A file of tables, as TOML has them."""

    path: Path
    package: Path
    """The folder of the package's own table."""
    tables: Mapping[str, Any]

    def shims(self, name: str) -> Path:
        """A folder of shims: beside this file, else beside the package's table."""
        folders = [folder.resolve() / "shims" / name for folder in (self.path.parent, self.package)]
        for folder in folders:
            if folder.is_dir():
                return folder
        raise TypeError(
            f"there is no folder of shims {' or '.join(dict.fromkeys(map(str, folders)))}"
        )

    def include(self, name: str) -> Path:
        """A folder of headers, by its path from this file."""
        folder = self.path.parent / name
        if not folder.is_dir():
            raise TypeError(f"there is no folder {folder}")
        return folder


class _Loading:
    """What the files say together, as far as they have been read."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._package: dict[str, Package] = {}
        self._packages: dict[str, DebianPackage] = {}
        self._origins: dict[str, Origin] = {}
        self._systems: dict[str, Columns] = {}
        self._everywhere: dict[str, Columns] = {}
        """By CPU: what is the same under every system."""
        self._cpus: dict[tuple[str, str], Columns] = {}
        self._targets: dict[str, Target] = {}

    def table(self) -> TargetTable:
        return TargetTable(self._package["package"], self._systems, self._cpus, self._targets)

    def read_sources(self, file: _File) -> None:
        for name in file.tables:
            with self._reading(file, name):
                _known(dict.fromkeys(_TABLES), name, "table")
        if "package" in file.tables:
            with self._reading(file, "package"):
                _add(self._package, "package", _made(Package, file.tables["package"]))
        for name, row in self._rows(file, file.tables, "packages"):
            section = f"packages.{name}"
            with self._reading(file, section):
                package = _made(DebianPackage, row)
                with self._reading(file, section, "unpack"):
                    _add(self._packages, name, replace(package, unpack=_strings(package.unpack)))
        for name, row in self._rows(file, file.tables, "origins"):
            section = f"origins.{name}"
            with self._reading(file, section):
                origin = _made(Origin, row)
                with self._reading(file, section, "macros"):
                    macros = _strings(origin.macros)
                    _add(self._origins, name, replace(origin, macros=macros))

    def read_defaults(self, file: _File) -> None:
        """What families need not say: what their systems and CPUs say for them."""
        for name, row in self._rows(file, file.tables, "systems"):
            section = f"systems.{name}"
            with self._reading(file, section):
                _add(self._systems, name, self._columns(row, file, section))
        for cpu, row in self._rows(file, file.tables, "cpus"):
            section = f"cpus.{cpu}"
            systems = {name: of for name, of in row.items() if _is_table(name, of)}
            if everywhere := {name: of for name, of in row.items() if name not in systems}:
                with self._reading(file, section):
                    _add(self._everywhere, cpu, self._columns(everywhere, file, section))
            for system, of_system in systems.items():
                with self._reading(file, f"{section}.{system}"):
                    own = self._columns(of_system, file, f"{section}.{system}")
                    _add(self._cpus, (cpu, system), {**self._everywhere.get(cpu, {}), **own})

    def read_families(self, file: _File) -> None:
        table = self.table()
        for family, row in self._rows(file, file.tables, "families"):
            section = f"families.{family}"
            with self._reading(file, section):
                found = len(self.problems)
                own = {name: of for name, of in row.items() if _is_table(name, of)}
                row = {name: value for name, value in row.items() if name not in own}
                system, cpus = row.pop("system"), row.pop("cpus")
                columns = self._columns(row, file, section)
                of_cpus = {
                    cpu: self._columns(of, file, f"{section}.{cpu}") for cpu, of in own.items()
                }
                with self._reading(file, section, "cpus"):
                    for cpu in own.keys() - set(_strings(cpus)):
                        raise TypeError(f"lacks {cpu}, which has columns of its own")
                if len(self.problems) > found:
                    continue
                for cpu in cpus:
                    with self._reading(file, f"{section}.{cpu}"):
                        of_cpu = {**columns, **of_cpus.get(cpu, {})}
                        target = table.target(family, cpu, system, of_cpu)
                        _add(self._targets, target.name, target)

    def _rows(
        self, file: _File, tables: Mapping[str, Any], name: str
    ) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The tables in a table."""
        rows = tables.get(name, {})
        with self._reading(file, name):
            for key, row in _table(rows).items():
                with self._reading(file, f"{name}.{key}"):
                    yield key, _table(row)

    @contextmanager
    def _reading(self, file: _File, section: str, column: str = "") -> Iterator[None]:
        """Note what is wrong with a table, so that all that are wrong are named at once."""
        try:
            yield
        except (AttributeError, KeyError, TypeError) as error:
            what = f"has no {error}" if isinstance(error, KeyError) else str(error)
            where = f"{file.path}: [{section}]{' ' * bool(column)}{column}"
            self.problems.append(Problem(where, what, "compare it with the other tables"))

    def _columns(self, row: Mapping[str, Any], file: _File, section: str) -> Columns:
        """The columns of a row that are right, by the names of a target's fields."""
        readers: dict[str, Callable[[Any], Any]] = {
            "triple": _string,
            "cpu_macro": _string,
            "headers": _strings,
            "folders": lambda value: tuple(map(self._folder, _strings(value))),
            "libc": lambda value: tuple(map(self._folder, _strings(value))),
            "include": lambda value: tuple(map(file.include, _strings(value))),
            "defines": lambda value: tuple(map(checked_define, _strings(value))),
            "origin": lambda value: _known(self._origins, _string(value), "origin"),
            "data_model": _model,
            "ioctl_rules": lambda value: _one_of(get_args(IoctlRules), value),
            "about": _string,
            "prelude": _string,
            "shims": lambda value: file.shims(_string(value)),
            "proof": _strings,
            "backend": _truth,
            "always": _truth,
            "any_case": _truth,
        }
        columns: dict[str, Any] = {}
        for column, value in row.items():
            with self._reading(file, section, column):
                field = "model" if column == "data_model" else column
                columns[field] = _known(readers, column, "column")(value)
        return columns

    def _folder(self, text: str) -> Folder:
        """A folder as ``folders`` has it: ``FOLDER``, or ``PACKAGE:FOLDER`` of a Debian package."""
        name, colon, path = text.rpartition(":")
        if not colon:
            return Folder(path)
        package = _known(self._packages, name, "package")
        wanted = PurePosixPath(path)
        kept = [PurePosixPath(folder) for folder in package.unpack]
        if not any(wanted.is_relative_to(f) or f.is_relative_to(wanted) for f in kept):
            unpacked = ", ".join(package.unpack)
            raise TypeError(f"{text}: of that package only {unpacked} is unpacked")
        return Folder(path, package)


_T = TypeVar("_T")
_Made = TypeVar("_Made", Package, DebianPackage, Origin, DataModel)
_K = TypeVar("_K")
_V = TypeVar("_V")
_TABLES = ("package", "packages", "origins", "systems", "cpus", "families")


def _is_table(name: str, value: object) -> bool:
    """Whether an entry among columns is a table of columns of its own: a family's CPU, a system."""
    return isinstance(value, dict) and name != "data_model"


def _table(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"is {value!r}, not a table")
    return value


def _add(known: dict[_K, _V], key: _K, value: _V) -> None:
    if key in known:
        raise TypeError("there is one of this name already")
    known[key] = value


def _known(known: Mapping[str, _V], name: str, what: str) -> _V:
    if name not in known:
        near = did_you_mean(name, list(known))
        raise TypeError(f"there is no {what} {name}: {near}the {what}s are {', '.join(known)}")
    return known[name]


def _made(kind: type[_Made], row: Mapping[str, Any]) -> _Made:
    """A dataclass from a table with an entry for each of its fields."""
    known = fields(kind)
    if unknown := row.keys() - {field.name for field in known}:
        raise TypeError(f"has an unknown entry: {', '.join(sorted(unknown))}")
    required = (field.name for field in known if field.default is MISSING)
    if missing := [name for name in required if name not in row]:
        raise TypeError(f"has no {', '.join(missing)}")
    return kind(**row)


def _one_of(allowed: Sequence[object], value: _T, what: str = "") -> _T:
    if value not in allowed:
        raise TypeError(f"{what}is {value!r}, none of {', '.join(map(repr, allowed))}")
    return value


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"is {value!r}, not a string")
    return value


def _strings(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError(f"is {value!r}, not a list of strings")
    return tuple(value)


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"is {value!r}, not true or false")
    return value


def checked_define(text: str) -> str:
    """The definition of a macro for a compiler's command line; TypeError if it is none."""
    if not re.fullmatch(r"[A-Za-z_]\w*(=[^\r\n\0]*)?", text, re.ASCII):
        raise TypeError(f"{text!r} does not define a macro: say NAME or NAME=VALUE, in one line")
    return text


def _model(row: Mapping[str, Any]) -> DataModel:
    model = _made(DataModel, _table(row))
    for column, allowed in (
        ("long", (4, 8)),
        ("pointer", (4, 8)),
        ("byte_order", ("little", "big")),
        ("signed_char", (True, False)),
        ("bit_fields", get_args(BitFieldRules)),
        ("int128_align", (8, 16)),
        ("long_double", (8, 16)),
    ):
        _one_of(allowed, getattr(model, column), f"{column} ")
    return model
