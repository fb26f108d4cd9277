"""What a compiler printed when it failed, as problems with header and line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from vmm_arch_gen.diagnostics import Problem, did_you_mean

_ERROR = re.compile(r"^(.+?):(\d+):\d+: (?:fatal )?error: (.+)$", re.M)
_MISSING = re.compile(r"'(.+)' file not found|(.+): No such file or directory")  # clang, gcc


def complaints(
    printed: str, folders: Sequence[Path], place: Callable[[str], str]
) -> Iterator[Problem]:
    """The errors in it; none if the compiler did not get as far as the headers.

    ``folders`` were searched for headers; ``place`` gives a file as errors name it.
    """
    for path, line, what in _ERROR.findall(printed):
        if missing := _MISSING.match(what):
            name = missing[1] or missing[2]
            nowhere = f"is in none of the include folders ({', '.join(map(str, folders))})"
            by_us = path == "<stdin>"
            yield Problem(
                name if by_us else f"{place(path)}:{line}",
                f"this header {nowhere}" if by_us else f"includes {name}, which {nowhere}",
                f"{_near(name, folders)}name the folder that has it with --include DIR, for diff"
                " as in FOLDER:FOLDER",
            )
        else:
            yield Problem(
                f"{place(path)}:{line}",
                f"the compiler says: {what}",
                "correct the header, or give the target a shim for it",
            )


def _near(name: str, folders: Sequence[Path]) -> str:
    """The headers that may be meant: called the same in another folder, or nearly the same."""
    known = {
        header.relative_to(folder).as_posix()
        for folder in folders
        for depth in ("*.h", "*/*.h", "*/*/*.h")  # not all of it: a folder may be somebody's home
        for header in folder.glob(depth)
    }
    file = PurePosixPath(name).name
    same = sorted(header for header in known if PurePosixPath(header).name == file)
    return f"did you mean {' or '.join(same[:3])}? " if same else did_you_mean(name, sorted(known))
