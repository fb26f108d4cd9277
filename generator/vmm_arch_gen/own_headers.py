"""Targets made of headers that the command line names: ``vmm-arch-gen extract --header …``.

Such a target has no row in a table. What its CPU and its system decide is the table's; the rest is
given on the command line, or follows from the headers' names.
"""

from __future__ import annotations

import platform
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from vmm_arch_gen.abi.reader import read_abi
from vmm_arch_gen.abi.text import MAGIC
from vmm_arch_gen.diagnostics import InputError, Problem, collecting, did_you_mean, refuse
from vmm_arch_gen.generate.generate import MARKER
from vmm_arch_gen.generate.own_module import own_module, runtime
from vmm_arch_gen.generate.values import load_values
from vmm_arch_gen.outputs import refuse_foreign
from vmm_arch_gen.project import Project
from vmm_arch_gen.targets import Target, TargetTable, checked_define

_CALLED = {"amd64": "x86_64", "arm64": "aarch64", "ppc64le": "powerpc64le"}
"""What systems call CPUs that are called otherwise here."""


@dataclass(frozen=True)
class OwnHeaders:
    """What the command line says of its headers."""

    headers: tuple[str, ...]
    """Each a file, or a name in one of the folders."""
    system: str
    cpus: tuple[str, ...]
    """This machine's, if none is named."""
    name: str | None = None
    """What the targets are called, before their CPU; None: as the last header."""
    include: tuple[Path, ...] = ()
    """Folders that are searched before the package's."""
    shims: str | None = None
    """A folder, or the name of one of the package's."""
    defines: tuple[str, ...] = ()


def own_targets(request: OwnHeaders, table: TargetTable, package_shims: Path) -> list[Target]:
    """A target for each CPU; InputError names every option that is wrong."""
    problems: list[Problem] = []
    names: list[str] = []
    include = list(request.include)
    for header in request.headers:
        with collecting(problems):
            folder, name = _find(header)
            names.append(name)
            if folder is not None and folder not in include:
                include.insert(0, folder)
    problems += _wrong_folders(request.include)
    problems += _wrong_defines(request.defines)
    shims = None
    if request.shims is not None:
        with collecting(problems):
            shims = _shims(request.shims, package_shims)
    family = request.name
    if family is None:
        family = re.sub(r"\W", "_", PurePath(request.headers[-1]).stem, flags=re.ASCII)
    if not re.fullmatch(r"[A-Za-z_]\w*", family, re.ASCII):
        what = f"{family!r} is not the name of a Python module"
        problems.append(Problem("--name", what, "name it with letters, digits and _: --name NAME"))
    columns: dict[str, Any] = {"include": tuple(include), "headers": tuple(names)}
    columns |= {"defines": request.defines} if request.defines else {}
    columns |= {"shims": shims} if shims else {}
    targets = []
    for cpu in dict.fromkeys(request.cpus or (_this_cpu(),)):
        try:
            targets.append(table.target(family, cpu, request.system, columns))
        except TypeError as error:
            where = f"--system {request.system} --only-cpu {cpu}"
            problems.append(Problem(where, str(error), "name one of these"))
    refuse(problems)
    return targets


def own_files(
    facts: Mapping[str, bytes], paths: Project, root: Path, *, standalone: bool
) -> dict[PurePosixPath, bytes]:
    """The files of a folder: facts and modules; InputError for a file there that is not ours.

    ``standalone`` adds what the modules import.
    """
    values = load_values(paths.values_file)
    files = {}
    for name, text in facts.items():
        abi = read_abi(text.decode(), f"{name}.abi", name)
        files[PurePosixPath(f"{name}.abi")] = text
        module = own_module(paths.templates, abi, values, standalone=standalone)
        files[PurePosixPath(f"{name}.py")] = module
    if standalone:
        files |= runtime(paths.templates)
    refuse_foreign(root, files, (MAGIC, MARKER))
    return files


def import_command(target: Target, root: Path, *, standalone: bool) -> str:
    """A command line that imports a target's module from the folder that it was written to."""
    place, code = root, f"import {target.name}"
    if standalone:  # a package, named after its folder
        folder = root.resolve()
        place, code = folder.parent, f"import {folder.name}.{target.name}"
        with suppress(ValueError):
            place = place.relative_to(Path.cwd())
    command = shlex.join(["python3", "-c", code])
    return command if place == Path() else f"cd {shlex.quote(str(place))} && {command}"


def _this_cpu() -> str:
    name = platform.machine().lower()
    return _CALLED.get(name, name)


def _find(header: str) -> tuple[Path | None, str]:
    """A header's name, and the folder that it is in if it is a file of the user's.

    A path from the root, or from the current folder with a dot in front, is named after its file.
    Another path to a file is a name in the current folder, so that ``linux/kvm.h`` keeps its name.
    """
    path = Path(header)
    dotted = path.is_absolute() or header.startswith(".")
    if path.is_dir():
        raise InputError(Problem(f"--header {header}", "is a folder", "name a header in it"))
    if dotted and not path.is_file():
        beside = path.parent.glob("*.h") if path.parent.is_dir() else ()
        near = did_you_mean(path.name, sorted(file.name for file in beside))
        remedy = f"{near}name an existing file, or a header of the include folders without the dot"
        raise InputError(Problem(f"--header {header}", "there is no such file", remedy))
    if not path.is_file():
        folder, name = None, path.as_posix()
    elif dotted:
        folder, name = path.parent, path.name
    else:
        folder, name = Path(), path.as_posix()
    if not re.fullmatch(r'[^\s<>"\\]+', name):
        what = "a header's name may have no blank, quote, backslash or angle bracket"
        raise InputError(Problem(f"--header {header}", what, "rename the file"))
    return folder, name


def _wrong_folders(folders: Sequence[Path]) -> Iterator[Problem]:
    for folder in folders:
        if not folder.is_dir():
            what = "this is not a folder" if folder.exists() else "there is no such folder"
            yield Problem(f"--include {folder}", what, "name an existing folder")


def _wrong_defines(defines: Sequence[str]) -> Iterator[Problem]:
    for define in defines:
        try:
            checked_define(define)
        except TypeError as error:
            yield Problem("--define", str(error), "quote it as for a shell")


def _shims(name: str, package: Path) -> Path:
    if (own := Path(name)).is_dir():
        return own
    known = sorted(folder.name for folder in package.iterdir() if folder.is_dir())
    if name in known:
        return package / name
    remedy = f"name an existing folder, or one of the package's: {', '.join(known)}"
    raise InputError(Problem(f"--shims {name}", "there is no such folder", remedy))
