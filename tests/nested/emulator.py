"""What a machine and this host agree on, whichever emulator is between them.

The machine writes to *ports*; what it writes to one is in the file of that name, in the folder in
which its emulator runs.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

PORTS = ("stdout", "stderr", "results")
"""Output and errors of the command, and an archive of what else came of it."""
CONSOLE, MESSAGES = "console", "emulator"
"""The files of the kernel's console and of the emulator's own messages."""

ARGUMENTS = (
    "panic=-1"  # which is a reset, and a reset is the machine's end
    " quiet"  # but for errors: each line costs time
    " no_timer_check"  # a busy host's timers are late
    # So late that the clock looks unstable, too; then KVM does not keep vCPUs' clocks together.
    " tsc=reliable"
    # Not needed here, and a quarter of the boot: tests of the kernel's own cryptography, questions
    # to the BIOS about disks, waiting for all CPUs where they can be asked.
    " cryptomgr.notests edd=off nokaslr audit=0 rcupdate.rcu_expedited=1"
)
"""The kernel's command line, beside the console."""

Boot: TypeAlias = Callable[[Path, Path, Path, float], str | None]
"""Boots a kernel with an initrd, in a folder, and waits for the machine's end, for so many seconds.

Returns what went wrong, or None if the machine came to an end of its own; a panic is one as well.
"""


def wait(process: subprocess.Popen[bytes], timeout: float) -> int | str:
    """The exit status of an emulator, which is ended if it takes too long; or what went wrong."""
    try:
        status = process.wait(timeout)
    except subprocess.TimeoutExpired:
        return f"it did not end within {timeout:g} s"
    finally:
        process.kill()
        process.wait()
    return f"its emulator was ended by signal {-status}" if status < 0 else status
