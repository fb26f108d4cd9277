"""Boots Linux in turn with vmm-arch and with QEMU's microvm, inside the nested machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

MEMORY = "256M"
COMMAND_LINE = "quiet"
ROOT = "qemu/usr"
CONTESTANTS = {
    "vmm-arch": [
        *(sys.executable, "-m", "vmm_arch", "run", "bzImage", "--initrd", "initrd"),
        *("--memory", MEMORY, "--append", COMMAND_LINE),
    ],
    "microvm": [
        *(
            f"{ROOT}/bin/qemu-system-x86_64",
            "-L",
            f"{ROOT}/share/qemu",
            "-L",
            f"{ROOT}/share/seabios",
        ),
        *("-accel", "kvm", "-cpu", "host", "-M", "microvm", "-m", MEMORY, "-nodefaults"),
        *("-display", "none", "-no-reboot", "-serial", "stdio", "-kernel", "bzImage"),
        *("-initrd", "initrd", "-append", f"console=ttyS0 reboot=t panic=-1 {COMMAND_LINE}"),
    ],
}
PATIENCE = 200
"""Seconds."""


def main(runs: int) -> None:
    libraries = f"{ROOT}/lib/x86_64-linux-gnu:qemu/lib/x86_64-linux-gnu"
    times: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    for _ in range(runs):
        for name, command in CONTESTANTS.items():
            environment = os.environ | ({"LD_LIBRARY_PATH": libraries} if name == "microvm" else {})
            times[name].append(to_userspace(command, environment))
            print(name, times[name][-1], file=sys.stderr, flush=True)
    Path("results/times.json").write_text(json.dumps(times))


def to_userspace(command: list[str], environment: dict[str, str]) -> float:
    """Seconds from the command's start to the line of the guest's first process."""
    start = time.monotonic()
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    shown = b""
    try:
        assert process.stdout is not None
        while b"userspace" not in shown:
            if time.monotonic() > start + PATIENCE:
                raise TimeoutError(shown.decode(errors="replace"))
            read = os.read(process.stdout.fileno(), 4096)
            if not read:
                raise EOFError(f"{command[0]} ended: {shown.decode(errors='replace')}")
            shown += read
        return time.monotonic() - start
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main(int(sys.argv[1]))
