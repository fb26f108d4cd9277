"""Other Pythons than this system has, from Debian's suites, unpacked into a cache folder.

Each comes with its own C library and is started through that library's loader, so that nothing of
the system changes.
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from pathlib import Path

from debian import Unavailable as Unavailable
from debian import suite
from platformdirs import user_cache_path

SUITES = {"3.13": "trixie", "3.14": "sid"}
"""Which suite packages which newer Python."""
_SUITES = {"3.11": "bookworm", **SUITES}

_PACKAGES = (
    "python{0}-minimal libpython{0}-minimal libpython{0}-stdlib"
    " libc6 libexpat1 libffi8 libgcc-s1 libzstd1 zlib1g"
)
_TRIPLET = "x86_64-linux-gnu"


def interpreter(version: str) -> Path:
    """The path of a command that is this Python, fetched on first use."""
    folder = user_cache_path("vmm-arch") / "pythons" / version
    command = folder / "python"
    if not command.exists():
        if os.uname().machine != "x86_64":
            raise Unavailable(f"Python {version} comes from Debian's packages for x86_64")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            root = Path(temporary, "root")
            with suite(_SUITES[version]) as packages:
                packages.unpack(_PACKAGES.format(version).split(), root)
            shutil.rmtree(folder, ignore_errors=True)
            root.rename(folder)
        # In older suites the C library is not below usr.
        loader = next(folder.glob("**/lib64/ld-linux-x86-64.so.2"))
        libraries = f"{folder}/lib/{_TRIPLET}:{folder}/usr/lib/{_TRIPLET}"
        command.write_text(
            "#!/bin/sh\n"
            f"PYTHONHOME={shlex.quote(str(folder / 'usr'))} exec {shlex.quote(str(loader))}"
            f" --library-path {shlex.quote(libraries)}"
            f' {shlex.quote(str(folder / "usr/bin"))}/python{version} "$@"\n'
        )
        command.chmod(0o755)
    return command
