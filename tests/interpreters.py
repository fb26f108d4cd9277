"""Newer Pythons than this system has, from Debian's newer suites, unpacked into a cache folder.

Each comes with its own C library and is started through that library's loader, so that nothing of
the system changes. Nobody has to be root. The packages come from wherever the system's own do.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from platformdirs import user_cache_path

SUITES = {"3.13": "trixie", "3.14": "sid"}
"""Which suite packages which Python."""

_PACKAGES = (
    "python{0}-minimal libpython{0}-minimal libpython{0}-stdlib"
    " libc6 libexpat1 libffi8 libgcc-s1 libzstd1 zlib1g"
)
_TRIPLET = "x86_64-linux-gnu"


class Unavailable(Exception):
    """The interpreter cannot be had here; the message says why."""


def interpreter(version: str) -> Path:
    """The path of a command that is this Python, fetched on first use."""
    folder = user_cache_path("vmm-arch") / "pythons" / version
    command = folder / "python"
    if not command.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            root = Path(temporary, "root")
            _unpack(version, Path(temporary), root)
            shutil.rmtree(folder, ignore_errors=True)
            root.rename(folder)
        loader = folder / "usr/lib64/ld-linux-x86-64.so.2"
        libraries = folder / "usr/lib" / _TRIPLET
        command.write_text(
            "#!/bin/sh\n"
            f"PYTHONHOME={shlex.quote(str(folder / 'usr'))} exec {shlex.quote(str(loader))}"
            f" --library-path {shlex.quote(str(libraries))}"
            f' {shlex.quote(str(folder / "usr/bin"))}/python{version} "$@"\n'
        )
        command.chmod(0o755)
    return command


def _unpack(version: str, work: Path, root: Path) -> None:
    if shutil.which("apt-get") is None or os.uname().machine != "x86_64":
        raise Unavailable(f"Python {version} comes from Debian's packages for x86_64: no apt-get")
    apt = _private_apt(SUITES[version], work)
    packages = work / "packages"
    packages.mkdir()
    _run(["apt-get", "update"], apt, work)
    _run(["apt-get", "download", *_PACKAGES.format(version).split()], apt, packages)
    root.mkdir()
    for package in packages.glob("*.deb"):
        _run(["dpkg", "-x", str(package), str(root)], apt, work)


def _private_apt(suite: str, work: Path) -> dict[str, str]:
    """An environment in which apt knows one suite and nothing of this system."""
    sources = [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]
    text = "\n".join(path.read_text() for path in sources if path.is_file())
    archive = re.search(r"^(?:URIs:|deb(?: \[.*?\])?) *(\S+/debian/?)(?:\s|$)", text, re.M)
    if archive is None:
        raise Unavailable("this system's apt knows no Debian archive")
    for folder in ("state/lists/partial", "cache/archives/partial", "etc"):
        (work / folder).mkdir(parents=True)
    (work / "status").touch()
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    (work / "etc/sources.list").write_text(f"deb [signed-by={keyring}] {archive[1]} {suite} main\n")
    (work / "apt.conf").write_text(
        f'Dir::State "{work}/state"; Dir::State::status "{work}/status";\n'
        f'Dir::Cache "{work}/cache"; Dir::Etc::sourcelist "{work}/etc/sources.list";\n'
        f'Dir::Etc::sourceparts "-"; APT::Architecture "amd64"; APT::Sandbox::User "";\n'
    )
    return os.environ | {"APT_CONFIG": str(work / "apt.conf")}


def _run(arguments: list[str], environment: dict[str, str], folder: Path) -> None:
    done = subprocess.run(
        arguments, env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise Unavailable(f"{shlex.join(arguments)} failed: {' '.join(lines[-2:])}")
