"""What a compiler printed when it failed, as problems with header and line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from vmm_arch_gen.diagnostics import Problem, did_you_mean
from vmm_arch_gen.extract.missing import MissingName, headers_in

_ERROR = re.compile(r"^(.+?):(\d+):\d+: (?:fatal )?error: (.+)$", re.M)
_MISSING = re.compile(r"'(.+)' file not found|(.+): No such file or directory")  # clang, gcc
_UNKNOWN = re.compile(
    r"unknown type name '(\w+)'|use of undeclared identifier '(\w+)'"
    r"|incomplete type '(?:struct |union |enum )?(\w+)'|'(\w+)' undeclared"
)


def complaints(
    printed: str, folders: Sequence[Path], place: Callable[[str], str]
) -> Iterator[Problem]:
    """The errors in it; none if the compiler did not get as far as the headers.

    ``folders`` were searched for headers; ``place`` gives a file as errors name it.
    """
    for path, line, what in _ERROR.findall(printed):
        where = f"{place(path)}:{line}"
        if missing := _MISSING.match(what):
            name = missing[1] or missing[2]
            nowhere = f"is in none of the include folders ({', '.join(map(str, folders))})"
            by_us = path == "<stdin>"
            yield Problem(
                name if by_us else where,
                f"this header {nowhere}" if by_us else f"includes {name}, which {nowhere}",
                f"{_near(name, folders)}name the folder that has it with --include DIR, for diff"
                " as in FOLDER:FOLDER",
            )
        elif what.startswith("#include nested"):
            yield Problem(
                where,
                "this #include never ends: the header includes itself, directly or through others",
                "give it an include guard: #ifndef, #define and #endif, or #pragma once",
            )
        else:
            said = f"the compiler says: {what}"
            remedy = "correct the header, or give the target a shim for it"
            if unknown := _UNKNOWN.search(what):
                yield MissingName(where, said, remedy, unknown[unknown.lastindex or 1])
            else:
                yield Problem(where, said, remedy)


def missing_headers(printed: str) -> list[str]:
    """The headers that a compiler did not find."""
    found = (_MISSING.match(what) for _, _, what in _ERROR.findall(printed))
    return [match[1] or match[2] for match in found if match]


def _near(name: str, folders: Sequence[Path]) -> str:
    """The headers that may be meant: called the same in another folder, or nearly the same."""
    known = headers_in(folders)
    file = PurePosixPath(name).name
    same = sorted(header for header in known if PurePosixPath(header).name == file)
    return f"did you mean {' or '.join(same[:3])}? " if same else did_you_mean(name, sorted(known))
