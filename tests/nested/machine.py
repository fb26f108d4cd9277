"""The nested test machine: boots, runs one command inside, powers off, and returns what came of it.

python tests/nested/machine.py --help says what it does as a command.
"""

from __future__ import annotations

import io
import logging
import shlex
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # run as a command: imports begin in the folder above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from debian import Unavailable

from nested import stock
from nested.architecture import X86_64, Architecture
from nested.overlay import overlay
from nested.qemu import CONSOLE, MESSAGES, run_qemu

_log = logging.getLogger(__name__)

PORTS = ("stdout", "stderr", "results", "status")
TAIL = 30
"""How many lines of each output a failure shows."""
NOISE = "warning: TCG doesn't support requested feature"
"""QEMU says this of each feature of the CPU that it does not interpret, and goes on without it."""


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

    architecture: Architecture
    qemu: str
    kernel: Path
    initrd: Path

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
            shutil.copyfile(self.initrd, initrd)
            with initrd.open("ab") as end:
                end.write(overlay(files, command, self.architecture.python))
            failure = run_qemu(
                self.qemu, self.architecture, self.kernel, initrd, PORTS, folder, timeout
            )
            outputs = {path.name: path.read_bytes() for path in folder.iterdir()}
        seconds = time.monotonic() - start
        status = outputs.get("status", b"")
        if failure is None and not status.endswith(b"\n"):
            failure = "it ended before its command had"
        if failure is not None:
            raise MachineFailed(_report(failure, command, outputs))
        _log.info("booted and ran %s in %.1f s", command[0], seconds)
        return Result(
            int(status),
            _text(outputs["stdout"]),
            _text(outputs["stderr"]),
            _unpacked(outputs["results"]),
            _text(outputs[CONSOLE]),
            seconds,
        )


def provision(architecture: Architecture = X86_64) -> Machine:
    """Make a machine; raise Unavailable if QEMU or Debian's packages cannot be had."""
    qemu = shutil.which(architecture.qemu)
    if qemu is None:
        raise Unavailable(
            f"the nested machine needs {architecture.qemu}; on Debian:"
            f" apt-get install --no-install-recommends {architecture.qemu_package}"
        )
    folder = stock.stock(architecture)
    return Machine(architecture, qemu, folder / stock.KERNEL, folder / stock.INITRD)


def _unpacked(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {
            member.name.removeprefix("./"): content.read()
            for member in tar
            if (content := tar.extractfile(member)) is not None
        }


def _report(failure: str, command: list[str], outputs: Mapping[str, bytes]) -> str:
    lines = [f"the machine that was to run {shlex.join(command)} failed: {failure}"]
    for name in (MESSAGES, CONSOLE, "stdout", "stderr"):
        said = [line for line in _text(outputs.get(name, b"")).splitlines() if NOISE not in line]
        if said:
            lines += [f"the end of {name}:", *(f"    {line}" for line in said[-TAIL:])]
    return "\n".join(lines)


def _text(data: bytes) -> str:
    return data.replace(b"\r\n", b"\n").decode(errors="backslashreplace")


if __name__ == "__main__":
    from nested.command import main

    main()
