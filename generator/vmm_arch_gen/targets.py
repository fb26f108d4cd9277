"""The table of targets, ``headers/targets.toml``, as values."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from vmm_arch_gen.abi.model import BitFieldRules, DataModel
from vmm_arch_gen.diagnostics import InputError, Problem, did_you_mean


@dataclass(frozen=True)
class Package:
    """The pinned Python package whose headers and compiler are the default."""

    name: str
    version: str
    include: str
    """The folder of its include folders, relative to the package."""


@dataclass(frozen=True)
class Origin:
    """Where a set of headers says its version."""

    name: str
    header: str
    macros: tuple[str, ...]


@dataclass(frozen=True)
class Target:
    """One row of the table; ``headers/targets.toml`` explains the columns."""

    name: str
    triple: str
    cpu_macro: str
    headers: tuple[str, ...]
    folders: tuple[str, ...]
    origin: Origin
    model: DataModel
    prelude: str
    shims: Path | None
    """A folder of headers that are found first: beside the table, else beside the package's."""
    proof: tuple[str, ...]
    backend: bool
    always: bool


@dataclass(frozen=True)
class TargetTable:
    package: Package
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


def largest_first(targets: Sequence[Target], abi: Path) -> list[Target]:
    """The targets by the size of their .abi files, so that the last one to be done is a small one."""
    files = {target.name: abi / f"{target.name}.abi" for target in targets}
    sizes = {name: path.stat().st_size if path.is_file() else 0 for name, path in files.items()}
    return sorted(targets, key=lambda target: -sizes[target.name])


def load_targets(path: Path, more: Path | None = None) -> TargetTable:
    """Read the table, and a user's rows; InputError names the entry that is wrong."""
    table = _read(path, "restore it from the repository")
    root = path.parent
    section = "package"
    origins: dict[str, Origin] = {}
    targets: dict[str, Target] = {}
    try:
        package = Package(**table.pop("package"))
        for file, rows in [(path, table)] + ([(more, _read(more, "write it"))] if more else []):
            path = file
            for section, row in rows.pop("origins", {}).items():
                origins[section] = Origin(row["name"], row["header"], tuple(row["macros"]))
            for section, row in rows.items():
                if section in targets:
                    raise TypeError("there is a target of this name already")
                shims = [folder.resolve() / "shims" for folder in (file.parent, root)]
                targets[section] = _target(section, row, origins, shims)
    except (AttributeError, KeyError, TypeError) as error:
        what = f"has no {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(
            Problem(f"{path}: [{section}]", what, "compare it with the other tables")
        ) from None
    return TargetTable(package, targets)


def _read(path: Path, remedy: str) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(Problem(str(path), f"cannot be read: {error}", remedy)) from None


def _strings(row: dict[str, Any], column: str) -> tuple[str, ...]:
    value = row.pop(column)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError(f"{column} is {value!r}, no list of strings")
    return tuple(value)


def _model(row: dict[str, Any]) -> DataModel:
    model = DataModel(**row)
    for column, allowed in (
        ("long", (4, 8)),
        ("pointer", (4, 8)),
        ("byte_order", ("little", "big")),
        ("signed_char", (True, False)),
        ("bit_fields", get_args(BitFieldRules)),
        ("int128_align", (8, 16)),
    ):
        if (value := getattr(model, column)) not in allowed:
            raise TypeError(f"{column} is {value!r}, none of {', '.join(map(repr, allowed))}")
    return model


def _shims(name: object, folders: Sequence[Path]) -> Path | None:
    if name is None:
        return None
    if not isinstance(name, str):
        raise TypeError(f"shims is {name!r}, not the name of a folder")
    for folder in folders:
        if (folder / name).is_dir():
            return folder / name
    places = dict.fromkeys(str(folder / name) for folder in folders)
    raise TypeError(f"there is no folder of shims {' or '.join(places)}")


def _target(
    name: str, row: dict[str, Any], origins: Mapping[str, Origin], shims: Sequence[Path]
) -> Target:
    row = dict(row)
    target = Target(
        name=name,
        triple=row.pop("triple"),
        cpu_macro=row.pop("cpu_macro"),
        headers=_strings(row, "headers"),
        folders=_strings(row, "folders"),
        origin=origins[row.pop("origin")],
        model=_model(row.pop("data_model")),
        prelude=row.pop("prelude", ""),
        shims=_shims(row.pop("shims", None), shims),
        proof=_strings(row, "proof") if "proof" in row else (),
        backend=bool(row.pop("backend", False)),
        always=bool(row.pop("always", False)),
    )
    if row:
        raise TypeError(f"has an unknown entry: {', '.join(row)}")
    return target
