"""Headers of pinned Debian packages: fetched once for each user, unpacked, and checked.

Archives drop old versions. What is not available is reported as a :class:`Problem`, with what the archive
has instead, so that a command can go on without it.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from vmm_arch_gen.diagnostics import InputError, Problem
from vmm_arch_gen.fetch import debian
from vmm_arch_gen.fetch.debian import Suite, Unavailable, Version
from vmm_arch_gen.fetch.kept import cache_folder, is_kept, kept
from vmm_arch_gen.targets import DebianPackage, Target

_OTHERWISE = "or name folders that have these headers with --include DIR"


def missing_packages(
    targets: Iterable[Target], say: Callable[[str], None]
) -> dict[str, list[Problem]]:
    """Fetch what the targets' headers come from: by target, what cannot be had, and why.

    ``say`` is told what is fetched, which takes some seconds.
    """
    problems: dict[DebianPackage, list[Problem]] = {}
    missing: dict[str, list[Problem]] = {}
    for target in targets:
        for package in target.packages:
            if package not in problems:
                if not is_kept(package.name, _key(package), _folder()):
                    what = f"{package.name} {package.version}"
                    say(f"fetching {what} from Debian's {package.suite}")
                problems[package] = _trouble(package)
            if problems[package]:
                missing.setdefault(target.name, []).extend(problems[package])
    return missing


def _trouble(package: DebianPackage) -> list[Problem]:
    try:
        unpacked(package)
    except InputError as error:
        return list(error.problems)
    return []


@cache
def unpacked(package: DebianPackage) -> Path:
    """The folder of a package's headers, fetched if need be and checked once in each process.

    InputError says why it is not to be had.
    """
    try:
        folder = kept(package.name, _key(package), lambda made: _make(package, made), _folder())
    except Unavailable as error:
        raise _problem(
            package, str(error), f"run it where apt can fetch it, {_OTHERWISE}"
        ) from None
    except OSError as error:
        what = f"cannot be unpacked into {_folder()}: {error.strerror or error}"
        remedy = "free space, correct permissions or set XDG_CACHE_HOME"
        raise _problem(package, what, remedy) from None
    return folder / package.include


def _folder() -> Path:
    return cache_folder("headers")


def _key(package: DebianPackage) -> str:
    wanted = "\n".join((package.sha256, package.include, *package.unpack))
    return hashlib.sha256(wanted.encode()).hexdigest()[:16]


def _make(package: DebianPackage, folder: Path) -> None:
    with (
        debian.suite(package.suite, package.architecture) as suite,
        tempfile.TemporaryDirectory(prefix="vmm-arch-") as temporary,
    ):
        try:
            [archive] = suite.download([f"{package.name}={package.version}"], Path(temporary))
        except Unavailable as error:
            raise _not_there(package, suite, error) from None
        with archive.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != package.sha256:
            what = f"what apt gives has the SHA-256 {digest}, but {package.sha256} is pinned"
            remedy = f"find out which of the two is right, {_OTHERWISE}"
            raise _problem(package, what, remedy)
        _unpack(package, archive, folder)


def _unpack(package: DebianPackage, archive: Path, folder: Path) -> None:
    """Unpack the folders that are wanted, which are few of a package's many."""
    members = [f"./{package.include}/{name}" for name in package.unpack]
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(archive)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as reading:
        done = subprocess.run(
            ["tar", "--extract", "--directory", str(folder), *members],
            stdin=reading.stdout,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode or reading.returncode:
        said = (done.stderr.strip().splitlines() or ["dpkg-deb failed"])[0]
        remedy = "correct include and unpack in the table of targets"
        raise _problem(package, f"cannot be unpacked: {said}", remedy)


def _not_there(package: DebianPackage, suite: Suite, error: Unavailable) -> InputError:
    """What to say of a version that the archive does not give: the newest that it has, if any."""
    now = sorted(suite.versions(_siblings(package.name)), key=_order)
    if now and now[-1].version != package.version:
        what = f"Debian's {package.suite} does not have it any more"
        return _problem(package, what, f"pin {_pin(now[-1])}, {_OTHERWISE}")
    return _problem(package, str(error), f"pin a version that there is, {_OTHERWISE}")


def _pin(version: Version) -> str:
    return f"what it has now, {version.name} {version.version} with the SHA-256 {version.sha256}"


def _siblings(name: str) -> str:
    """A pattern for the package under its other versions' names, which may contain the version."""
    return re.sub(r"[0-9]+(\\?\.[0-9]+)*", "[0-9.]+", re.escape(name))


def _order(version: Version) -> list[tuple[int, str]]:
    """Versions of one package, in their order: by the numbers in them."""
    parts = re.findall(r"([0-9]+)|([^0-9]+)", version.version)
    return [(int(number or -1), text) for number, text in parts]


def _problem(package: DebianPackage, what: str, remedy: str) -> InputError:
    return InputError(Problem(f"{package.name} {package.version}", what, remedy))
