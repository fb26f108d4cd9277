"""``vmm-arch run --core``: an ELF core dump of a guest that failed."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from vmm_arch.command.cpu import Cpu
from vmm_arch.ending import Ending, Reason
from vmm_arch.errors import HypervisorError

FAILURES: Final = (
    Reason.SHUTDOWN,
    Reason.HALTED,
    Reason.FAILED,
    Reason.PANIC,
    Reason.TIMEOUT,
)
"""The endings of which there is a core dump."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--core",
        type=Path,
        metavar="FILE",
        help="if the guest fails (triple fault, panic, halt for good, timeout), write an ELF core"
        " dump for crash and gdb",
    )
    parser.add_argument(
        "--core-paging",
        action="store_true",
        help="in the core dump, memory is where the guest's page tables map it, for gdb with a"
        " kernel's symbols, and not where it is physically",
    )


def check(options: argparse.Namespace) -> None:
    """Raise ValueError if the options contradict each other."""
    if options.core_paging and options.core is None:
        raise ValueError("--core-paging: it is about a core dump; give --core FILE as well")


def write(
    options: argparse.Namespace, cpu: Cpu, vm: Any, ending: Ending, say: Callable[[str], object]
) -> None:
    """Write the core dump, if the ending is a failure, and say so; what prevents it is said, too."""
    if options.core is None or ending.reason not in FAILURES:
        return
    try:
        cpu.save_core(vm, options.core, by_virtual_address=options.core_paging)
    except (HypervisorError, OSError, ValueError) as error:
        say(f"vmm-arch: no core dump: {error}")
    else:
        say(f"vmm-arch: core dump in {options.core}")
