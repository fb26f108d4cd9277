"""Runs Bochs, which boots from a disk, as a PC does; its ports are serial ports."""

from __future__ import annotations

import os
import re
import subprocess
import termios
import threading
import tty
from pathlib import Path
from typing import IO

from nested.bochs_package import Bochs
from nested.disk import CYLINDER, HEADS, MEMORY, TRACK, disk
from nested.emulator import ARGUMENTS, CONSOLE, MESSAGES, PORTS, wait

# Without a speed the kernel takes 9600 baud, and waits for each character. With reboot=t a reset is
# a triple fault, which ends Bochs; a real reset would boot anew. The mitigations are a tenth of the
# time, and nothing here needs them.
_CMDLINE = f"console=ttyS0,115200 {ARGUMENTS} reboot=t mitigations=off"

# What Bochs runs a second on a host of today is about `ips`: the machine's time, in which everything
# there waits, is counted in instructions. Of all displays a terminal is the one that needs nothing
# else: no window, no port of the network.
_SETTINGS = """\
config_interface: textconfig
display_library: term
cpu: model={model}, count=1, ips=40000000, reset_on_triple_fault=0, ignore_bad_msrs=1
memory: guest={megabytes}, host={megabytes}
romimage: file={bochs.bios}, options=fastboot
vgaromimage: file={bochs.vga_bios}
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=disk, path=disk, mode=flat, cylinders={cylinders}, heads={heads}, spt={track}
boot: disk
log: {messages}
panic: action=fatal
error: action=ignore
info: action=ignore
"""
_DEBUGGER = "c\n"
"""What to tell the debugger, in which Debian's Bochs begins: to go on."""

_SCREEN = re.compile(rb'connected to screen "(/dev/\S+)"')
_OWN_END = re.compile(
    r">>PANIC<< (?:ACPI control: soft power off|exception\(\): 3rd \(\d+\) exception)"
)
"""What Bochs logs, as it does a failure, where the machine powers off or makes a triple fault."""


def run_bochs(
    bochs: Bochs, model: str, kernel: Path, initrd: Path, folder: Path, timeout: float
) -> str | None:
    """Boot a machine with this model of a CPU: with the two arguments given, an emulator.Boot."""
    image = disk(kernel.read_bytes(), initrd.read_bytes(), _CMDLINE)
    (folder / "disk").write_bytes(image)
    # The paths of its ROMs have a short buffer in Bochs: they are given from the folder on.
    (folder / "bochs").symlink_to(bochs.root)
    bochs = Bochs(Path("bochs"))
    settings = _SETTINGS.format(
        model=model,
        megabytes=MEMORY >> 20,
        bochs=bochs,
        cylinders=len(image) // CYLINDER,
        heads=HEADS,
        track=TRACK,
        messages=MESSAGES,
    )
    for number, port in enumerate((CONSOLE, *PORTS), 1):
        settings += f"com{number}: enabled=1, mode=file, dev={port}\n"
    (folder / "settings").write_text(settings)
    (folder / "debugger").write_text(_DEBUGGER)
    said: list[str] = []
    process = subprocess.Popen(
        [*bochs.command, "-q", "-f", "settings", "-rc", "debugger"],
        env=os.environ | bochs.environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    listener = threading.Thread(target=_listen, args=(process.stdout, said))
    listener.start()
    status = wait(process, timeout)
    listener.join()
    if isinstance(status, str):
        return status
    log = folder / MESSAGES
    if log.exists() and _OWN_END.search(log.read_text(errors="replace")):
        return None
    return f"Bochs ended with exit status {status}: {said[-1] if said else 'it said nothing'}"


def _listen(output: IO[bytes], said: list[str]) -> None:
    """Take what Bochs says, and what it draws on the terminal that it says it has made for that."""
    with output:
        for line in output:
            if text := line.decode(errors="replace").strip():
                said.append(text)
            if screen := _SCREEN.search(line):
                terminal = os.open(screen[1], os.O_RDWR | os.O_NOCTTY)
                threading.Thread(target=_discard, args=(terminal,)).start()


def _discard(terminal: int) -> None:
    """Read a terminal until its other side is closed: whoever draws waits for a reader."""
    try:
        tty.setraw(terminal)  # which echoes nothing
        while os.read(terminal, 1 << 16):
            pass
    except (OSError, termios.error):  # EIO: nobody draws any more
        pass
    finally:
        os.close(terminal)
