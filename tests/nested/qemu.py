"""Runs QEMU, and never for longer than it may take."""

from __future__ import annotations

import subprocess
from pathlib import Path

from nested.architecture import Architecture

CONSOLE, MESSAGES = "console", "qemu"
"""The files of the kernel's console and of QEMU's own messages."""

ARGUMENTS = (
    "panic=-1"  # which is a reset, and a reset is the machine's end
    " quiet"  # but for errors: each line costs time
    " no_timer_check"  # a busy host's timers are late
    # Not needed here, and a quarter of the boot: tests of the kernel's own cryptography, questions
    # to the BIOS about disks, waiting for all CPUs where they can be asked.
    " cryptomgr.notests edd=off nokaslr audit=0 rcupdate.rcu_expedited=1"
)
"""The kernel's command line, beside the console."""


def run_qemu(
    program: str,
    architecture: Architecture,
    kernel: Path,
    initrd: Path,
    ports: tuple[str, ...],
    folder: Path,
    timeout: float,
) -> str | None:
    """Boot a machine and wait for its end: None if it is the machine's own.

    What the machine writes to one of the ports is in the file of that name in the folder.
    """
    command = [
        *(program, *architecture.hardware, "-nodefaults", "-display", "none", "-no-reboot"),
        *("-kernel", str(kernel), "-initrd", str(initrd)),
        *("-append", f"console={architecture.console} {ARGUMENTS}"),
        *("-chardev", f"file,id={CONSOLE},path={CONSOLE}", "-serial", f"chardev:{CONSOLE}"),
        *("-device", "virtio-serial"),
    ]
    for port in ports:
        command += ["-chardev", f"file,id={port},path={port}"]
        command += ["-device", f"virtserialport,chardev={port},name={port}"]
    with (folder / MESSAGES).open("wb") as messages:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=messages, stderr=messages
        )
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            return f"it did not end within {timeout:g} s"
        finally:
            process.kill()
            process.wait()
    match status:
        case 0:
            return None
        case _ if status < 0:
            return f"QEMU was ended by signal {-status}"
    return f"QEMU ended with exit status {status}"
