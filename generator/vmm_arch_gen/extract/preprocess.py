"""Headers, preprocessed: C text that pycparser reads, the macros, and which header each is in."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vmm_arch_gen.diagnostics import InputError
from vmm_arch_gen.extract.respell import respell, respell_numbers
from vmm_arch_gen.extract.toolchain import Toolchain
from vmm_arch_gen.targets import Target

# Compilers' own spellings that mean nothing to an ABI or have a standard one.
_OPTIONS = (
    "-D__extension__=",
    "-D__signed__=signed",
    "-D__inline__=inline",
    "-D__inline=inline",
    "-D__restrict=restrict",
    "-D__volatile__=volatile",
    "-D__const=const",
    "-D__const__=const",
    "-D__signed=signed",
    "-D__volatile=volatile",
    "-D__restrict__=restrict",
    "-D__alignof__=_Alignof",
    "-D__alignof=_Alignof",
    "-D__typeof__=typeof",
    "-D__typeof=typeof",
    "-D__thread=_Thread_local",
    "-D__complex__=_Complex",
    "-D__forceinline=inline",
    "-D__int8=char",
    "-D__int16=short",
    "-D__int32=int",
    "-D__int64=long long",
    "-D__ptr64=",
    "-D__unaligned=",
)


IOCTL_MAKERS = ("_IO", "_IOR", "_IOW", "_IOWR", "_IOC")
"""The macros that every system's headers make ioctl numbers with."""
IOCTL_DIRECTIONS = (
    *("_IOC_NONE", "_IOC_READ", "_IOC_WRITE"),
    *("IOC_VOID", "IOC_OUT", "IOC_IN", "IOC_INOUT"),
)
"""What the last of them is given as the direction, under Linux and on the BSDs."""

_PROBE = "__vmm_arch_probe__"
_PROBES = "<macros>"
"""What the compiler calls the lines that use macros."""
_NOT_HEADERS = ("<", "shim:", "cc:")  # the compiler's and the project's own


@dataclass(frozen=True)
class Macro:
    """A macro that a header leaves defined."""

    name: str
    body: str
    parameters: tuple[str, ...] | None
    """The names of its arguments, ``...`` for any number of them; None if it takes none at all."""
    header: str
    line: int


@dataclass(frozen=True)
class Source:
    """The preprocessed headers of a target."""

    text: str
    """C with line markers that give each header's name."""
    macros: Mapping[str, Macro]
    headers: tuple[str, ...]
    headers_digest: str
    """The SHA-256 of the names and contents of the headers."""


def _includes(target: Target) -> str:
    return "".join(f"#include <{header}>\n" for header in target.headers)


def preprocess(target: Target, toolchain: Toolchain, shims: tuple[Path, ...]) -> Source:
    """Read a target's headers."""
    raw = toolchain.preprocess(
        f"{target.prelude}\n{_includes(target)}", options=(*_OPTIONS, "-dD"), shims=shims
    )
    lines: list[str] = []
    macros: dict[str, Macro] = {}
    plain: dict[str, str] = {}
    files: dict[str, str] = {}
    names: dict[str, str] = {}
    header, at = "", 0
    for line in raw.splitlines():
        at += 1
        if not line.startswith("#"):
            lines.append(line)
        elif marker := re.match(r'# (\d+) "(.*?)"', line):
            number, path = marker.groups()
            at = int(number) - 1
            if path not in names:
                names[path] = toolchain.header_name(path, shims)
            header = names[path]
            files[header] = path
            lines.append(f'# {number} "{header}"')
        elif define := re.match(r"#define (\w+)(\()?(.*)", line):
            name, parenthesis, rest = define.groups()
            if not parenthesis:
                plain[name] = rest.strip()
            if not header.startswith(_NOT_HEADERS):
                listed, _, body = rest.partition(")") if parenthesis else ("", "", rest)
                parameters = tuple(re.findall(r"\w*\.\.\.|\w+", listed)) if parenthesis else None
                macros[name] = Macro(name, body.strip(), parameters, header, at)
            lines.append("")
        elif undefine := re.match(r"#undef (\w+)", line):
            macros.pop(undefine[1], None)
            plain.pop(undefine[1], None)
            lines.append("")
        elif pack := re.match(r"#pragma pack\b(.*)", line):
            # Compilers expand macros here, but not all of them when they only preprocess.
            lines.append(f"#pragma pack{_expanded(pack[1], plain)}")
        else:
            lines.append(line)
    headers = tuple(sorted(name for name in files if not name.startswith(_NOT_HEADERS)))
    digest = hashlib.sha256()
    for name in headers:
        digest.update(
            f"{name} {hashlib.sha256(Path(files[name]).read_bytes()).hexdigest()}\n".encode()
        )
    return Source(respell("\n".join(lines)), macros, headers, digest.hexdigest())


def _expanded(text: str, macros: Mapping[str, str]) -> str:
    """A short text in which macros without parameters stand for what they are defined as."""
    for _ in macros:
        text, before = re.sub(r"\w+", lambda word: macros.get(word[0], word[0]), text), text
        if text == before:
            break
    return text


class Unexpandable(str):
    """Why the compiler does not expand a macro, in the place of what it expands to."""


@dataclass(frozen=True)
class Expansions:
    """What macros expand to, as C text."""

    texts: Mapping[str, str]
    ioctls: Mapping[str, str]
    """Those that make an ioctl number, down to ``_IO`` and its like: what the number is made of."""


def expand(
    target: Target,
    toolchain: Toolchain,
    shims: tuple[Path, ...],
    uses: Mapping[str, str],
    ioctls: Sequence[str],
) -> Expansions:
    """Expand macros: ``uses`` has C text that uses each; ``ioctls`` are those that make ioctl numbers."""
    undefined = "".join(f"#undef {name}\n" for name in (*IOCTL_MAKERS, *IOCTL_DIRECTIONS))
    refused: dict[str, str] = {}
    raw: str | None = None
    while raw is None:
        names = [name for name in uses if name not in refused]
        text = (
            f"{target.prelude}\n{_includes(target)}"
            f'#line 1 "{_PROBES}"\n{_probes(uses[name] for name in names)}'
            f"{undefined}{_probes(ioctls)}"
        )
        options = (*_OPTIONS, "-Wno-invalid-token-paste")
        try:
            raw = toolchain.preprocess(text, options=options, shims=shims)
        except InputError as error:  # an unused macro may call another one wrongly
            wrong = _refused(error, names)
            if not wrong:
                raise
            refused |= wrong
    raw = respell_numbers(re.sub(r"^#.*$", "", raw, flags=re.M))
    found = [_one_line(text) for text in raw.split(_PROBE)[1:]]
    return Expansions(
        dict(zip(names, found[: len(names)], strict=True)) | refused,
        dict(zip(ioctls, found[len(names) :], strict=True)),
    )


_SPACE = re.compile(r"""("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|\s+""")


def _one_line(text: str) -> str:
    """An expansion with one space wherever there is any, but in literals."""
    return _SPACE.sub(lambda match: match[1] or " ", text).strip()


def _refused(error: InputError, names: Sequence[str]) -> dict[str, str]:
    """Why the compiler refuses which of the macros that are probed; nothing if that is not all."""
    found: dict[str, str] = {}
    for problem in error.problems:
        match = re.fullmatch(rf"{_PROBES}:(\d+)", problem.where)
        if match is None or int(match[1]) > len(names):
            return {}
        found[names[int(match[1]) - 1]] = Unexpandable(problem.what)
    return found


def _probes(uses: Iterable[str]) -> str:
    return "".join(f"{_PROBE} {use}\n" for use in uses)
