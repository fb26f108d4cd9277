"""Runs QEMU, which loads a kernel and an initrd itself; its ports are virtio's."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from vmm_arch_gen.fetch.debian import Unavailable

from nested.emulator import ARGUMENTS, CONSOLE, MESSAGES, PORTS, wait

PROGRAM, PACKAGE = "qemu-system-x86_64", "qemu-system-x86"

# One processor: two that take turns in one thread wait for each other, since neither gives up its
# turn while it spins. That is the emulator's, whatever a guest of the machine does.
HARDWARE = ("-accel", "tcg,thread=single", "-smp", "1", "-m", "1G")


def find_qemu() -> str:
    """Where QEMU is."""
    program = shutil.which(PROGRAM)
    if program is None:
        raise Unavailable(
            f"the nested machine needs {PROGRAM}; on Debian:"
            f" apt-get install --no-install-recommends {PACKAGE}"
        )
    return program


def run_qemu(
    program: str, model: str, kernel: Path, initrd: Path, folder: Path, timeout: float
) -> str | None:
    """Boot a machine with this model of a CPU: with the two arguments given, an emulator.Boot."""
    command = [
        *(program, *HARDWARE, "-cpu", model, "-nodefaults", "-display", "none", "-no-reboot"),
        *("-kernel", str(kernel), "-initrd", str(initrd)),
        *("-append", f"console=ttyS0 {ARGUMENTS}"),
        *("-chardev", f"file,id={CONSOLE},path={CONSOLE}", "-serial", f"chardev:{CONSOLE}"),
        *("-device", "virtio-serial"),
    ]
    for port in PORTS:
        command += ["-chardev", f"file,id={port},path={port}"]
        command += ["-device", f"virtserialport,chardev={port},name={port}"]
    with (folder / MESSAGES).open("wb") as messages:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=messages, stderr=messages
        )
        match wait(process, timeout):
            case 0:
                return None
            case int(status):
                return f"QEMU ended with exit status {status}"
            case trouble:
                return trouble
