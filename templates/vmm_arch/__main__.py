"""The ``vmm-arch`` command: ``run`` boots Linux, ``doctor`` and ``selftest`` examine this host,
``state`` examines saved machines."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from vmm_arch.command import doctor, run, selftest, state

OUTPUT_CLOSED = 141
"""The exit status if the reader of the output has closed it: a shell's for SIGPIPE."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says, and return the exit status."""
    parser = argparse.ArgumentParser(prog="vmm-arch", description=__doc__)
    with suppress(PackageNotFoundError):  # used from its folder, without being installed
        parser.add_argument("--version", action="version", version=version("vmm-arch"))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run_parser = commands.add_parser(
        "run",
        help="boot a Linux kernel with a serial console",
        description="Boot a Linux kernel in a virtual machine with a serial console, or go on with a"
        " machine that was saved.",
        epilog=run.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_arguments(run_parser)
    run_parser.set_defaults(command=run.run)
    doctor_parser = commands.add_parser(
        "doctor",
        help="report what this host can do, what is missing and how to get it",
        description="Report what this host can do, what is missing and how to get it.",
        epilog="Exit status: 0 if a hypervisor works here, else 1.",
    )
    doctor_parser.set_defaults(command=lambda options: doctor.doctor())
    selftest_parser = commands.add_parser(
        "selftest",
        help="run test guests on this host's hypervisor and write a report",
        description="Run test guests on this host's hypervisor: does it do what vmm-arch promises?",
        epilog=selftest.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    selftest.add_arguments(selftest_parser)
    selftest_parser.set_defaults(command=selftest.selftest)
    state_parser = commands.add_parser(
        "state",
        help="show a snapshot or a saved state, or what differs between two",
        description="Show a snapshot or a saved state, or what differs between two of them.",
        epilog=state.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    state.add_arguments(state_parser)
    state_parser.set_defaults(command=state.state)
    options = parser.parse_args(arguments)
    try:
        status: int = options.command(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has what it wanted, as head(1) does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OUTPUT_CLOSED
    return status


if __name__ == "__main__":
    sys.exit(main())
