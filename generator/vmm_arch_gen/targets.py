"""The table of targets, ``headers/targets.toml``, as values.

A family is one target for each of its CPUs. A column that it does not have is the CPU's, or the
system's. Each table is checked where it stands, so that an error names the one that is wrong.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, Field, dataclass, fields, replace
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
    header: str
    macros: tuple[str, ...]


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
    origin: Origin
    model: DataModel
    ioctl_rules: IoctlRules = "generic"
    about: str = ""
    prelude: str = ""
    shims: Path | None = None
    """A folder of headers that are found first: beside the table, else beside the package's."""
    proof: tuple[str, ...] = ()
    backend: bool = False
    always: bool = False

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
    "origin": "origin",
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


class _Loading:
    """What the files say together, as far as they have been read."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._package: dict[str, Package] = {}
        self._packages: dict[str, DebianPackage] = {}
        self._origins: dict[str, Origin] = {}
        self._systems: dict[str, Columns] = {}
        self._cpus: dict[tuple[str, str], Columns] = {}
        self._targets: dict[str, Target] = {}

    def table(self) -> TargetTable:
        return TargetTable(self._package["package"], self._systems, self._cpus, self._targets)

    def read_sources(self, file: _File) -> None:
        for name in file.tables:
            with self._reading(file, name):
                if name not in _TABLES:
                    raise TypeError(f"there is no such table; tables: {', '.join(_TABLES)}")
        if "package" in file.tables:
            with self._reading(file, "package"):
                _add(self._package, "package", _made(Package, file.tables["package"]))
        for name, row in _items(file.tables, "packages"):
            with self._reading(file, f"packages.{name}"):
                package = _made(DebianPackage, row)
                unpack = _strings("unpack", package.unpack)
                _add(self._packages, name, replace(package, unpack=unpack))
        for name, row in _items(file.tables, "origins"):
            with self._reading(file, f"origins.{name}"):
                origin = _made(Origin, row)
                macros = _strings("macros", origin.macros)
                _add(self._origins, name, replace(origin, macros=macros))

    def read_defaults(self, file: _File) -> None:
        """What families need not say: what their systems and CPUs say for them."""
        for name, row in _items(file.tables, "systems"):
            with self._reading(file, f"systems.{name}"):
                _add(self._systems, name, self._columns(row, file))
        for cpu, rows in _items(file.tables, "cpus"):
            for system, row in rows.items():
                with self._reading(file, f"cpus.{cpu}.{system}"):
                    _add(self._cpus, (cpu, system), self._columns(row, file))

    def read_families(self, file: _File) -> None:
        table = self.table()
        for family, row in _items(file.tables, "families"):
            with self._reading(file, f"families.{family}"):
                row = dict(row)
                system, cpus = row.pop("system"), _strings("cpus", row.pop("cpus"))
                of_cpus = {cpu: row.pop(cpu, {}) for cpu in cpus}
                columns = self._columns(row, file)
                for cpu in cpus:
                    with self._reading(file, f"families.{family}.{cpu}"):
                        own = self._columns(of_cpus[cpu], file)
                        target = table.target(family, cpu, system, {**columns, **own})
                        _add(self._targets, target.name, target)

    @contextmanager
    def _reading(self, file: _File, section: str) -> Iterator[None]:
        """Note what is wrong with a table, so that all that are wrong are named at once."""
        try:
            yield
        except (AttributeError, KeyError, TypeError) as error:
            what = f"has no {error}" if isinstance(error, KeyError) else str(error)
            where = f"{file.path}: [{section}]"
            self.problems.append(Problem(where, what, "compare it with the other tables"))

    def _columns(self, row: Mapping[str, Any], file: _File) -> Columns:
        """The columns of a row, by the names of a target's fields."""
        columns: dict[str, Any] = {}
        for column, value in row.items():
            match column:
                case "triple" | "cpu_macro" | "about" | "prelude":
                    columns[column] = _of_type(str, column, value)
                case "headers" | "proof":
                    columns[column] = _strings(column, value)
                case "folders":
                    columns[column] = tuple(map(self._folder, _strings(column, value)))
                case "backend" | "always":
                    columns[column] = _of_type(bool, column, value)
                case "origin":
                    columns[column] = self._origins[value]
                case "data_model":
                    columns["model"] = _model(value)
                case "ioctl_rules":
                    columns[column] = _one_of(get_args(IoctlRules), column, value)
                case "shims":
                    columns[column] = file.shims(_of_type(str, column, value))
                case _:
                    raise TypeError(f"has an unknown column: {column}")
        return columns

    def _folder(self, text: str) -> Folder:
        """A folder as ``folders`` has it: ``FOLDER``, or ``PACKAGE:FOLDER`` of a Debian package."""
        name, colon, path = text.rpartition(":")
        if not colon:
            return Folder(path)
        if name not in self._packages:
            known = ", ".join(self._packages)
            raise TypeError(f"{text}: there is no package {name!r}; the packages are {known}")
        package = self._packages[name]
        wanted = PurePosixPath(path)
        kept = [PurePosixPath(folder) for folder in package.unpack]
        if not any(wanted.is_relative_to(f) or f.is_relative_to(wanted) for f in kept):
            unpacked = ", ".join(package.unpack)
            raise TypeError(f"{text}: of that package only {unpacked} is unpacked")
        return Folder(path, package)


_T = TypeVar("_T")
_K = TypeVar("_K")
_V = TypeVar("_V")
_TABLES = ("package", "packages", "origins", "systems", "cpus", "families")


def _items(tables: Mapping[str, Any], name: str) -> list[tuple[str, Any]]:
    return list(tables.get(name, {}).items())


def _add(known: dict[_K, _V], key: _K, value: _V) -> None:
    if key in known:
        raise TypeError("there is one of this name already")
    known[key] = value


def _made(kind: type[_T], row: Mapping[str, Any]) -> _T:
    """A dataclass from a table with an entry for each of its fields."""
    known: tuple[Field[Any], ...] = fields(kind)  # type: ignore[arg-type]
    if unknown := row.keys() - {field.name for field in known}:
        raise TypeError(f"has an unknown entry: {', '.join(sorted(unknown))}")
    required = (field.name for field in known if field.default is MISSING)
    if missing := [name for name in required if name not in row]:
        raise TypeError(f"has no {', '.join(missing)}")
    return kind(**row)


def _one_of(allowed: Sequence[object], column: str, value: _T) -> _T:
    if value not in allowed:
        raise TypeError(f"{column} is {value!r}, none of {', '.join(map(repr, allowed))}")
    return value


def _of_type(kind: type[_T], column: str, value: object) -> _T:
    if not isinstance(value, kind):
        words = {str: "a string", bool: "true or false"}
        raise TypeError(f"{column} is {value!r}, not {words[kind]}")
    return value


def _strings(column: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError(f"{column} is {value!r}, not a list of strings")
    return tuple(value)


def _model(row: dict[str, Any]) -> DataModel:
    model = _made(DataModel, row)
    for column, allowed in (
        ("long", (4, 8)),
        ("pointer", (4, 8)),
        ("byte_order", ("little", "big")),
        ("signed_char", (True, False)),
        ("bit_fields", get_args(BitFieldRules)),
        ("int128_align", (8, 16)),
    ):
        _one_of(allowed, column, getattr(model, column))
    return model
