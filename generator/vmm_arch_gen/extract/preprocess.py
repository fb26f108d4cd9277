"""Headers, preprocessed: C text that pycparser reads, the macros, and which header each is in."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vmm_arch_gen.diagnostics import InputError, Problem
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
)


IOCTL_MAKERS = ("_IO", "_IOR", "_IOW", "_IOWR")
"""The macros that every system's headers make ioctl numbers with."""

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
    files: dict[str, str] = {}
    names: dict[str, str] = {}
    header, at = "", 0
    for line in raw.splitlines():
        at += 1
        if marker := re.match(r'# (\d+) "(.*?)"', line):
            number, path = marker.groups()
            at = int(number) - 1
            if path not in names:
                names[path] = toolchain.header_name(path, shims)
            header = names[path]
            files[header] = path
            lines.append(f'# {number} "{header}"')
        elif define := re.match(r"#define (\w+)(\()?(.*)", line):
            name, parenthesis, rest = define.groups()
            if not header.startswith(_NOT_HEADERS):
                listed, _, body = rest.partition(")") if parenthesis else ("", "", rest)
                parameters = tuple(re.findall(r"\w*\.\.\.|\w+", listed)) if parenthesis else None
                macros[name] = Macro(name, body.strip(), parameters, header, at)
            lines.append("")
        elif undefine := re.match(r"#undef (\w+)", line):
            macros.pop(undefine[1], None)
            lines.append("")
        else:
            lines.append(line)
    headers = tuple(sorted(name for name in files if not name.startswith(_NOT_HEADERS)))
    digest = hashlib.sha256()
    for name in headers:
        digest.update(
            f"{name} {hashlib.sha256(Path(files[name]).read_bytes()).hexdigest()}\n".encode()
        )
    text = _standard_attributes("\n".join(lines))
    return Source(text, macros, headers, digest.hexdigest())


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
    undefined = "".join(f"#undef {name}\n" for name in IOCTL_MAKERS)
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
        except InputError as error:  # it may be that a macro nobody uses calls another one wrongly
            wrong = _refused(error, names)
            if not wrong:
                raise
            refused |= wrong
    raw = re.sub(r"^#.*$", "", raw, flags=re.M)
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


_ATTRIBUTE = re.compile(r"\b__attribute(?:__)?\s*\(\s*\(")


def _standard_attributes(text: str) -> str:
    """Respell GNU's attributes as C23's: ``__attribute__((packed))`` as ``[[gnu::packed]]``.

    C23 allows attributes in the places where headers have them, so that pycparser's C23 dialect
    finds out what each one belongs to. Nothing is dropped here; who reads the tree decides.
    """
    done, at = [], 0
    while match := _ATTRIBUTE.search(text, at):
        end = _closing(text, match.end())
        names = split(text[match.end() : text.rindex(")", 0, end)])
        spelled = ", ".join(f"gnu::{name.strip()}" for name in names if name.strip())
        newlines = "\n" * text.count("\n", match.start(), end)  # keeps the lines' numbers
        done += [text[at : match.start()], f"[[{spelled}]]" if spelled else "", newlines]
        at = end + 1
    return "".join([*done, text[at:]])


def _closing(text: str, start: int) -> int:
    """The position of the parenthesis that closes an attribute, of which two are open."""
    depth = 2
    for match in re.compile(r"[()]").finditer(text, start):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return match.start()
    raise InputError(
        Problem(
            f"line {text.count(chr(10), 0, start) + 1} of the preprocessed headers",
            "an attribute's parentheses are not closed",
            "close them in the header that this line came from",
        )
    )


def split(text: str) -> list[str]:
    """Split C text at the commas outside its parentheses."""
    parts, depth, begin = [], 0, 0
    for at, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append(text[begin:at])
            begin = at + 1
    return [*parts, text[begin:]]
