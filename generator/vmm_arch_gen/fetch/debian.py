"""Packages of Debian's suites, fetched and unpacked without changing anything of this system.

Each suite gets an apt of its own, which knows nothing of the system's but where the archive is.
Nobody has to be root, and the packages may be another architecture's.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


class Unavailable(Exception):
    """What is wanted cannot be had here; the message says why."""


@dataclass(frozen=True)
class Version:
    """A package that a suite has now."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True)
class Suite:
    """A suite of Debian's as a private apt sees it."""

    folder: Path
    """Where the private apt keeps everything."""

    def unpack(self, packages: Iterable[str], root: Path) -> None:
        """Download packages and unpack all of them into one folder; no script of theirs is run."""
        with tempfile.TemporaryDirectory(dir=self.folder) as temporary:
            root.mkdir(parents=True, exist_ok=True)
            for package in self.download(packages, Path(temporary)):
                self._run("dpkg", "-x", str(package), str(root))

    def download(self, packages: Iterable[str], folder: Path) -> list[Path]:
        """Download packages into an empty folder; ``NAME=VERSION`` is that version, no other."""
        self._run("apt-get", "download", *packages, folder=folder)
        return sorted(folder.glob("*.deb"))

    def versions(self, pattern: str) -> list[Version]:
        """The newest version of each package whose whole name matches a regular expression."""
        found = self._run("apt-cache", "search", "--names-only", f"^{pattern}$")
        names = [line.split()[0] for line in found.splitlines()]
        if not names:
            return []
        shown = self._run("apt-cache", "show", "--no-all-versions", *names)
        return [
            Version(*(re.findall(rf"^{field}: (\S+)$", entry, re.M)[0] for field in _FIELDS))
            for entry in re.split(r"\n\n+(?=Package: )", shown.strip())
        ]

    def dependencies(self, package: str) -> list[str]:
        """The packages that a package depends on: a metapackage is nothing but these."""
        shown = self._run("apt-cache", "depends", "--important", package)
        return re.findall(r"^ *Depends: (\S+)$", shown, re.M)

    def closure(self, package: str) -> list[str]:
        """A package with everything that it depends on, directly or not."""
        without = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
        options = [f"--no-{relation}" for relation in without]
        shown = self._run("apt-cache", "depends", "--recurse", *options, package)
        return sorted(set(re.findall(r"^(\w\S*)$", shown, re.M)))

    def _run(self, *command: str, folder: Path | None = None) -> str:
        environment = os.environ | {"APT_CONFIG": str(self.folder / "apt.conf"), "LC_ALL": "C"}
        done = subprocess.run(
            command,
            env=environment,
            cwd=folder or self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines()
            raise Unavailable(f"{shlex.join(command)} failed: {' '.join(lines[-2:])}")
        return done.stdout


_FIELDS = ("Package", "Version", "SHA256")


@contextmanager
def suite(name: str, architecture: str = "amd64") -> Iterator[Suite]:
    """A suite's packages, as long as the context lasts; they come from where the system's do."""
    missing = [command for command in ("apt-get", "dpkg") if shutil.which(command) is None]
    if missing:
        raise Unavailable(
            f"Debian's packages are needed, and there is no {' and no '.join(missing)}"
        )
    with tempfile.TemporaryDirectory(prefix="vmm-arch-") as temporary:
        private = Suite(Path(temporary))
        _configure(private.folder, name, architecture)
        private._run("apt-get", "-o", "APT::Update::Error-Mode=any", "update")
        yield private


def _configure(folder: Path, suite: str, architecture: str) -> None:
    """Make a folder in which apt knows one suite and nothing of this system."""
    archive = archive_of(
        [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]
    )
    if archive is None:
        raise Unavailable("this system's apt knows no Debian archive")
    for below in ("state/lists/partial", "cache/archives/partial", "etc"):
        (folder / below).mkdir(parents=True)
    (folder / "status").touch()
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    source = f"deb [signed-by={keyring}] {archive} {suite} main\n"
    (folder / "etc/sources.list").write_text(source)
    (folder / "apt.conf").write_text(
        f'Dir::State "{folder}/state"; Dir::State::status "{folder}/status";\n'
        f'Dir::Cache "{folder}/cache"; Dir::Etc::sourcelist "{folder}/etc/sources.list";\n'
        f'Dir::Etc::sourceparts "-"; APT::Sandbox::User "";\n'
        f'APT::Architecture "{architecture}"; APT::Architectures {{ "{architecture}"; }};\n'
        'Acquire::Retries "1";\n'
    )


def archive_of(sources: Iterable[Path]) -> str | None:
    """Where the archive is by apt's lists of sources; ``mirror+file:`` names a list of mirrors."""
    for path in sources:
        try:
            text = path.read_text(errors="replace")
        except OSError:  # one with a password, say, which is root's alone
            continue
        line = r"^(?:URIs:|deb(?: \[.*?\])?)[ \t]*(\S+/debian(?:\.list)?/?)(?:\s|$)"
        if archive := re.search(line, text, re.M):
            return archive[1]
    return None
