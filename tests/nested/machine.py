"""The nested test machine: boots, runs one command inside, powers off, and returns what came of it.

python tests/nested/machine.py --help says what it does as a command.
"""

from __future__ import annotations

import io
import logging
import shlex
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

if __name__ == "__main__":  # run as a command: imports begin in the folder above
    _TESTS = Path(__file__).resolve().parents[1]
    sys.path[:1] = [str(_TESTS), str(_TESTS / "support")]

from nested import stock
from nested.architecture import AMD, PROCESSORS, Processor
from nested.bochs import run_bochs
from nested.bochs_package import find_bochs
from nested.emulator import CONSOLE, MESSAGES, PORTS, Boot
from nested.overlay import overlay
from nested.qemu import find_qemu, run_qemu

_log = logging.getLogger(__name__)

TAIL = 30
"""How many lines of each output a failure shows."""
NOISE = "warning: TCG doesn't support requested feature"
"""QEMU says this of each feature of the CPU that it does not interpret, and goes on without it."""
RESULTS, STATUS = "results", "status"
"""What the archive has that the machine sends: a folder, and a file behind that."""


class MachineFailed(Exception):
    """The machine did not get to its end; the message says how far it got."""


@dataclass(frozen=True)
class Result:
    """What came of a command that ran inside."""

    status: int
    """The command's exit status; 128 and a signal's number if that ended it."""
    stdout: str
    stderr: str
    files: dict[str, bytes]
    """What it wrote to its folder ``results``, by the path below that."""
    console: str
    """What the kernel and init had to say: errors only, and usually none."""
    seconds: float


@dataclass(frozen=True)
class Machine:
    """A machine that can be booted, any number of times: each time it is new."""

    boot: Boot
    python: str
    """The version of the Python inside."""
    kernel: Path
    initrd: tuple[Path, ...]
    """Archives that are unpacked one after the other."""

    def run(
        self, files: Mapping[str, bytes | Path], command: list[str], timeout: float = 300
    ) -> Result:
        """Boot, run a command in a folder with these files, which may be folders, and power off.

        Python finds modules in that folder. Whatever the command leaves in its folder ``results``
        is returned. The timeout, in seconds, includes the boot; MachineFailed is raised if the
        machine did not get as far as to report the command's end.
        """
        start = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="vmm-arch-") as temporary:
            folder = Path(temporary)
            initrd = folder / "initrd"
            archives = [path.read_bytes() for path in self.initrd]
            initrd.write_bytes(b"".join([*archives, overlay(files, command, self.python)]))
            failure = self.boot(self.kernel, initrd, folder, timeout)
            # An emulator may make a file when the first byte comes.
            written = [folder / name for name in (MESSAGES, CONSOLE, *PORTS)]
            outputs = {path.name: path.read_bytes() if path.exists() else b"" for path in written}
        seconds = time.monotonic() - start
        sent = _unpacked(outputs[RESULTS])
        if failure is None and STATUS not in sent:
            failure = "it ended before its command had"
        if failure is not None:
            raise MachineFailed(_report(failure, command, outputs))
        _log.info("booted and ran %s in %.1f s", command[0], seconds)
        return Result(
            int(sent.pop(STATUS)),
            _text(outputs["stdout"]),
            _text(outputs["stderr"]),
            {name.removeprefix(f"{RESULTS}/"): content for name, content in sent.items()},
            _text(outputs[CONSOLE]),
            seconds,
        )


def provision(processor: Processor = PROCESSORS[AMD], suite: str = "bookworm") -> Machine:
    """Make a machine with the kernel of one of Debian's suites.

    Raise Unavailable if the emulator or Debian's packages cannot be had.
    """
    architecture = processor.architecture
    boot: Boot
    match processor.emulator:
        case "QEMU":
            boot = partial(run_qemu, find_qemu(), processor.model)
        case "Bochs":
            boot = partial(run_bochs, find_bochs(), processor.model)
    kernel = stock.kernel(architecture, suite)
    initrd = stock.userland(architecture) / stock.INITRD
    modules = kernel / stock.modules_archive(processor.kvm)
    return Machine(boot, architecture.python, kernel / stock.KERNEL, (initrd, modules))


def _unpacked(archive: bytes) -> dict[str, bytes]:
    """The files of an archive, as far as it goes."""
    files = {}
    with suppress(tarfile.TarError), tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            if (content := tar.extractfile(member)) is not None:
                files[member.name] = content.read()
    return files


def _report(failure: str, command: list[str], outputs: Mapping[str, bytes]) -> str:
    lines = [f"the machine that was to run {shlex.join(command)} failed: {failure}"]
    for name in (MESSAGES, CONSOLE, "stdout", "stderr"):
        said = [line for line in _text(outputs[name]).splitlines() if NOISE not in line]
        if said:
            lines += [f"the end of {name}:", *(f"    {line}" for line in said[-TAIL:])]
    return "\n".join(lines)


def _text(data: bytes) -> str:
    return data.replace(b"\r\n", b"\n").decode(errors="backslashreplace")


if __name__ == "__main__":
    from nested.command import main

    main()
