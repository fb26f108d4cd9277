"""Reads unittests.cfg: which programs there are, and how each wants to be run.

Source: kvm-unit-tests, docs/unittests.txt and scripts/common.bash.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

ARCHITECTURE = "x86_64"
DEFAULT_TIMEOUT = 90.0
CONFIGURATION = "unittests.cfg"


class ConfigurationError(Exception):
    """The folder or its configuration cannot be used; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Test:
    """A section of the configuration: one way to run a program."""

    __test__ = False  # for pytest, which collects what is called so

    name: str
    image: Path
    arguments: str = ""
    smp: str = "1"
    parameters: tuple[str, ...] = ()
    """QEMU's, in words."""
    groups: tuple[str, ...] = ()
    architecture: str = ""
    accelerator: str = ""
    machine: str = ""
    check: str = ""
    disabled_if: str = ""
    timeout: float = DEFAULT_TIMEOUT
    """In seconds."""

    @property
    def cpus(self) -> int:
        return int(self.smp)

    def obstacle(self) -> str | None:
        """Why it is not for this machine, if so, whoever runs it."""
        if self.architecture not in ("", ARCHITECTURE):
            return f"for {self.architecture} only"
        if self.accelerator not in ("", "kvm"):
            return f"for QEMU's {self.accelerator} only"
        if self.machine:
            return f"for the machine {self.machine} only"
        if self.disabled_if:
            return f"its disabled_if is for run_tests.sh: {self.disabled_if}"
        if "migration" in self.groups:
            return "migrates"
        if not self.smp.isdecimal() or not 1 <= self.cpus <= 255:
            return f"smp = {self.smp} is no number of CPUs"
        for path, _, value in (item.partition("=") for item in self.check.split()):
            try:
                found = Path(path).read_text().strip()
            except OSError:
                return f"there is no {path}"
            if found != value:
                return f"{path} is {found}, not {value}"
        if not self.image.is_file():
            return f"there is no {self.image.name}"
        return None


def find(folder: Path) -> tuple[Path, Path]:
    """The configuration, and the folder of its images: in a folder, or in its folder x86."""
    for place in (folder, folder / "x86"):
        if (place / CONFIGURATION).is_file():
            if not any(place.glob("*.flat")):
                what = f"{place} has {CONFIGURATION} and no images (*.flat)"
                raise ConfigurationError(f"{what}: build them (./configure && make)")
            return place / CONFIGURATION, place
    if not folder.is_dir():
        raise ConfigurationError(f"there is no folder {folder}")
    what = f"there is no {CONFIGURATION} in {folder} or {folder / 'x86'}"
    raise ConfigurationError(f"{what}: give a checkout of kvm-unit-tests that was built")


def read(file: Path, images: Path) -> list[Test]:
    """Read all sections, in their order; raise ConfigurationError with the line that is wrong."""
    tests: list[Test] = []
    for number, key, value in _lines(file):
        where = f"{file}:{number}"
        if key == "[":
            tests.append(Test(value, images / ""))
            continue
        if not tests:
            raise ConfigurationError(f"{where}: {key} stands before the first [section]")
        try:
            tests[-1] = _with(tests[-1], key, value, images)
        except ValueError as error:
            raise ConfigurationError(f"{where}: {key}: {error}") from None
    for test in tests:
        if test.image == images:
            raise ConfigurationError(f"{file}: [{test.name}] names no file")
    return tests


def _lines(file: Path) -> Iterator[tuple[int, str, str]]:
    """Line number, key and value; for a section the key is a bracket.

    A value in three quotes goes on over several lines, where a backslash at the end joins two.
    """
    lines = enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
    for number, line in lines:
        if section := re.fullmatch(r"\[(.*)\]\s*", line):
            yield number, "[", section[1]
        elif line.strip() and not line.lstrip().startswith("#"):
            pair = re.fullmatch(r"(\w+)\s*=\s*(.*?)\s*", line)
            if pair is None:
                what = "is neither [section] nor key = value"
                raise ConfigurationError(f"{file}:{number}: {line!r} {what}")
            key, value = pair.groups()
            if value.startswith('"""'):
                value = value.removeprefix('"""')
                while not value.rstrip().endswith('"""'):
                    following = next(lines, None)
                    if following is None:
                        raise ConfigurationError(f'{file}:{number}: {key} has no closing """')
                    value = value.removesuffix("\\") + "\n" + following[1]
                value = value.rstrip().removesuffix('"""')
            yield number, key, value


def _with(test: Test, key: str, value: str, images: Path) -> Test:
    match key:
        case "file":
            return replace(test, image=images / value)
        case "smp":
            return replace(test, smp=value)
        case "test_args":
            return replace(test, arguments=" ".join(shlex.split(_expanded(value))))
        case "qemu_params" | "extra_params":
            return replace(test, parameters=tuple(shlex.split(_expanded(value))))
        case "groups":
            return replace(test, groups=tuple(value.split()))
        case "arch":
            return replace(test, architecture=value)
        case "accel":
            return replace(test, accelerator=value)
        case "machine":
            return replace(test, machine=value)
        case "check":
            return replace(test, check=value)
        case "disabled_if":
            return replace(test, disabled_if=value)
        case "timeout":
            return replace(test, timeout=float(value.removesuffix("s")))
        case _:  # another VMM's parameters
            return test


def _expanded(value: str) -> str:
    """Put in what a shell would: of commands in backticks, the one that is used."""
    value = value.replace("`date +%s`", str(int(time.time())))
    if "`" in value or "$(" in value:
        raise ValueError(
            f"a shell would run a command in {value}: of those, only `date +%s` is known"
        )
    return value
