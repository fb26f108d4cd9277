"""Other Pythons than this system has, from Debian's suites, unpacked into a cache folder.

Each comes with its own C library and is started through that library's loader, so that nothing of
the system changes.
"""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path

from vmm_arch_gen.fetch import debian
from vmm_arch_gen.fetch.debian import Unavailable as Unavailable
from vmm_arch_gen.fetch.kept import cache_folder, kept

SUITES = {"3.13": "trixie", "3.14": "sid"}
"""Which suite packages which newer Python."""
_SUITES = {"3.11": "bookworm", **SUITES}

_PACKAGES = (
    "python{0}-minimal libpython{0}-minimal libpython{0}-stdlib"
    " libc6 libexpat1 libffi8 libgcc-s1 libzstd1 zlib1g"
)
_TRIPLET = "x86_64-linux-gnu"

# It works wherever the folder is.
_START = """#!/bin/sh
here=${0%/*}
PYTHONHOME="$here/usr" exec "$here/LOADER" \\
    --library-path "$here/lib/TRIPLET:$here/usr/lib/TRIPLET" "$here/usr/bin/PROGRAM" "$@"
"""


@cache
def interpreter(version: str) -> Path:
    """The path of a command that is this Python, fetched on first use."""
    if os.uname().machine != "x86_64":
        raise Unavailable(f"Python {version} comes from Debian's packages for x86_64")
    recipe = (_SUITES[version], _PACKAGES, _START)
    key = hashlib.sha256(repr(recipe).encode()).hexdigest()[:16]
    folder = kept(version, key, lambda made: _make(version, made), cache_folder("pythons"))
    return folder / "python"


def _make(version: str, folder: Path) -> None:
    with debian.suite(_SUITES[version]) as packages:
        packages.unpack(_PACKAGES.format(version).split(), folder)
    # In older suites the C library is not below usr.
    loader = next(folder.glob("**/lib64/ld-linux-x86-64.so.2")).relative_to(folder)
    command = folder / "python"
    start = _START.replace("LOADER", str(loader)).replace("PROGRAM", f"python{version}")
    command.write_text(start.replace("TRIPLET", _TRIPLET))
    command.chmod(0o755)
