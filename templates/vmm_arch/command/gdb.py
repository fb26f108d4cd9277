"""``vmm-arch run --gdb``: the guest under gdb."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from vmm_arch.command.cpu import Cpu
from vmm_arch.debug.server import LOCALHOST, GdbServer
from vmm_arch.devices.bus import Bus


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--gdb",
        type=address,
        metavar="[HOST:]PORT",
        help="wait for gdb before the first instruction, and let it debug the guest; only this host"
        " can connect unless HOST is an address that others reach (port 0: any that is free)",
    )


def address(text: str) -> tuple[str, int]:
    """Parse a host and a TCP port."""
    found = re.fullmatch(r"(?:(\[[0-9a-fA-F:]+\]|[^:\[\]]+):)?(\d{1,5})", text)
    if found is None or int(found[2]) > 0xFFFF:
        raise argparse.ArgumentTypeError(f"{text!r} is not a TCP port such as 1234, or HOST:1234")
    return (found[1] or LOCALHOST).strip("[]"), int(found[2])


def check(options: argparse.Namespace) -> None:
    """Raise ValueError if the options contradict each other."""
    if options.gdb is not None and options.single_step:
        raise ValueError("--gdb and --single-step: gdb does the stepping; leave one of them out")


def connect(
    options: argparse.Namespace,
    stack: ExitStack,
    arch: Any,
    cpu: Cpu,
    vm: Any,
    bus: Bus,
    say: Callable[[str], object],
) -> GdbServer | None:
    """Listen for gdb, if that is wanted, and say how it connects."""
    if options.gdb is None:
        return None
    server = GdbServer(
        vm,
        bus,
        cpu.DEBUGGING,
        options.gdb,
        architecture=cpu.debugged_architecture(options),
        abilities=cpu.debugging_abilities(arch),
        say=lambda line: say(f"vmm-arch: {line}"),
    )
    stack.callback(server.close)
    host, number = server.address
    where = f"[{host}]:{number}" if ":" in host else f"{host}:{number}"
    say(
        "vmm-arch: the guest waits for gdb:"
        f" gdb {options.kernel or 'KERNEL'} -ex 'target remote {where}'"
    )
    return server
