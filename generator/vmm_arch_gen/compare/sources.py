"""Where a version of the facts comes from: .abi files, a folder of them, a git revision, headers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vmm_arch_gen.abi.text import MAGIC
from vmm_arch_gen.diagnostics import InputError, Problem, refuse

_HOW = "name .abi files, a folder of them, folders of headers, or a git revision"


@dataclass(frozen=True)
class Text:
    """The .abi text of one target."""

    text: str
    where: str
    """How errors name it."""


@dataclass(frozen=True)
class HeaderFolders:
    """Folders of headers, which first have to be extracted."""

    given: str
    folders: tuple[Path, ...]


@dataclass(frozen=True)
class Texts:
    """What there is for each target."""

    given: str
    by_target: Mapping[str, Text]
    one_file: bool = False
    """Whether that is one file, so that other targets are not meant."""


def find_source(given: str) -> Texts | HeaderFolders:
    """What an argument of ``diff`` means; InputError if it means nothing.

    Folders of headers are one folder, or several as in PATH.
    """
    if not all(given.split(os.pathsep)):  # an unset variable; Path would make it this folder
        what = "is empty" if not given else "a part of it is empty"
        raise InputError(Problem(repr(given), what, _HOW))
    path = Path(given)
    if path.is_file():
        return Texts(given, _by_target([(given, _decoded(path.read_bytes(), given))]), True)
    if path.is_dir() and (files := sorted(path.glob("*.abi"))):
        texts = [(str(file), _decoded(file.read_bytes(), str(file))) for file in files]
        return Texts(given, _by_target(texts))
    folders = tuple(Path(folder) for folder in given.split(os.pathsep))
    if all(folder.is_dir() for folder in folders):
        if not any(True for folder in folders for _ in folder.rglob("*.h")):
            what = "there are neither .abi files nor headers in this folder"
            raise InputError(Problem(given, what, _HOW))
        return HeaderFolders(given, folders)
    return _revision(given)


def _decoded(data: bytes, where: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InputError(
            Problem(where, "is not an .abi file: it is not UTF-8 text", _HOW)
        ) from None


def _by_target(texts: Sequence[tuple[str, str]]) -> dict[str, Text]:
    """The texts by the target that each says it is about."""
    found: dict[str, Text] = {}
    problems = []
    for where, text in texts:
        magic, _, rest = text.partition("\n")
        name = rest.partition("\n")[0].removeprefix("target ")
        if not magic.startswith(f"{MAGIC} "):
            problems.append(Problem(where, "is not an .abi file", _HOW))
        elif name in found:
            what = f"holds the facts of target {name!r}, as {found[name].where} does"
            problems.append(Problem(where, what, "name one of them, or the folder of one"))
        else:
            found[name] = Text(text, where)
    refuse(problems)
    return found


def _revision(given: str) -> Texts:
    """The .abi files of a git revision; of a folder or a file in it with ``REVISION:PATH``."""
    revision, _, path = given.partition(":")
    tree = f"{revision}:{path}"
    try:
        listed = _git("ls-tree", "-r", "-z", "--full-tree", "--end-of-options", tree)
    except FileNotFoundError:
        what = "there is no such file or folder, and git, to look for a revision, is not installed"
        raise InputError(Problem(given, what, f"install git, or {_HOW}")) from None
    if listed is None:
        if path and (text := _git("cat-file", "blob", tree)) is not None:
            return Texts(given, _by_target([(given, _decoded(text, given))]), True)
        raise InputError(_no_revision(given, revision, path))
    entries = [entry.partition("\t") for entry in listed.decode().split("\0") if entry]
    blobs = [(head.split()[2], name) for head, _, name in entries if name.endswith(".abi")]
    if not blobs:
        what = "this git revision has no .abi files"
        remedy = "name one that has, or extract them from its headers: vmm-arch-gen extract"
        raise InputError(Problem(given, what, remedy))
    prefix = f"{revision}:{path.rstrip('/')}/" if path else f"{revision}:"
    contents = _contents([blob for blob, _ in blobs])
    texts = zip(blobs, contents, strict=True)
    return Texts(
        given,
        _by_target([(prefix + name, _decoded(text, prefix + name)) for (_, name), text in texts]),
    )


def _no_revision(given: str, revision: str, path: str) -> Problem:
    """Why git has nothing of that name."""
    if _git("rev-parse", "--git-dir") is None:
        what = (
            "there is no such file or folder, and this is not a git repository, to have a revision"
        )
        return Problem(given, what, _HOW)
    commit = f"{revision}^{{commit}}"
    if _git("rev-parse", "--verify", "--quiet", "--end-of-options", commit) is None:
        what = "there is no such file or folder, and no such git revision here"
        return Problem(given, what, _HOW)
    what = f"there is no file or folder {path} in this revision"
    return Problem(given, what, f"git ls-tree {revision} lists what there is")


def _contents(blobs: Sequence[str]) -> list[bytes]:
    """What is in some objects of the repository."""
    printed = _git("cat-file", "--batch", given="".join(f"{blob}\n" for blob in blobs))
    assert printed is not None, "git listed objects that it does not have"
    contents, at = [], 0
    for _ in blobs:
        begin = printed.index(b"\n", at) + 1
        size = int(printed[at:begin].split()[2])
        contents.append(printed[begin : begin + size])
        at = begin + size + 1
    return contents


def _git(*arguments: str, given: str = "") -> bytes | None:
    """What git prints, or None if it fails."""
    import subprocess

    done = subprocess.run(
        ["git", *arguments], input=given.encode(), capture_output=True, check=False
    )
    return done.stdout if done.returncode == 0 else None
