"""Builds and runs rival.c: what is measured in Python, done in C."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

SOURCE = Path(__file__).with_name("rival.c")
SOURCES = [SOURCE, *(SOURCE.with_name(f"rival_{part}.c") for part in ("reset", "memory"))]
OPTIONS = ["-std=c11", "-O2", "-Wall", "-Wextra", "-pthread"]


def compiler() -> list[str]:
    """The pinned compiler, with the headers that it brings along; without it, the system's."""
    if find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-linux-gnu"]
    return ["gcc"]


class Rival:
    """The C program, running: it waits while Python is measured, and the other way round.

    Raises subprocess.CalledProcessError if it cannot be built, and RuntimeError if it fails.
    """

    def __init__(self) -> None:
        self._folder = TemporaryDirectory()
        program = Path(self._folder.name, "rival")
        try:
            command = [*compiler(), *OPTIONS, "-o", str(program), *map(str, SOURCES)]
            subprocess.run(command, check=True)
            self._process = subprocess.Popen(
                [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        except BaseException:
            self._folder.cleanup()
            raise

    def measure(self, command: str, count: int) -> list[int]:
        """Repeat one of the commands that rival.c lists, and return each duration in ns."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):  # it has failed before; the line that is read says why
            print(command, count, file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        try:
            times = [int(time) for time in line.split()]
        except ValueError:
            raise RuntimeError(f"{SOURCE.name}: {line.strip()}") from None
        if len(times) != count:
            raise RuntimeError(f"{SOURCE.name}: it ended without an answer to {command} {count}")
        return times

    def close(self) -> None:
        """End the program, which does so at the end of its input, and remove it."""
        try:
            self._process.communicate()
        finally:
            self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        self.close()
