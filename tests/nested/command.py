"""The machine as a command: see its --help."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from vmm_arch.selftest.play import Suite
from vmm_arch_gen.fetch.debian import Unavailable

from nested.architecture import AMD, KERNELS, PROCESSORS
from nested.machine import Machine, MachineFailed, provision
from nested.scenarios import PRODUCT, play_all

FAILED, UNAVAILABLE = 1, 2
NAMES = Suite("x86_64").names


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="machine: %(message)s")
    arguments = _parser().parse_args()
    try:
        machine = provision(PROCESSORS[arguments.processor], arguments.kernel)
        match arguments.action:
            case "build":
                status = _build(machine)
            case "run":
                status = _run(machine, arguments)
            case _:
                status = _test(machine, arguments.name)
    except (Unavailable, MachineFailed) as error:
        print(f"machine: {error}", file=sys.stderr)
        status = UNAVAILABLE
    sys.exit(status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="machine.py",
        description="A stock Debian kernel with a working KVM, run without any hardware.",
        epilog=f"Exit status: {UNAVAILABLE} if there is no machine or it does not come to its end.",
    )
    parser.add_argument(
        "--processor",
        choices=PROCESSORS,
        default=AMD,
        help=f"what is emulated: AMD's by QEMU, the others, Intel's, by Bochs ({AMD})",
    )
    parser.add_argument(
        "--kernel", choices=KERNELS, default=KERNELS[0], help=f"whose kernel ({KERNELS[0]})"
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("build", help="fetch and make what is not there yet, and say where it is")
    run = actions.add_parser(
        "run",
        help="boot, run a command, power off, and exit with the command's status",
        description="Boots, runs a command in a folder where vmm_arch is, and powers off."
        " Commands are busybox's and python3.",
    )
    run.add_argument(
        "--file",
        metavar="NAME=PATH",
        action="append",
        default=[],
        help="a file or a folder to have there, under this name",
    )
    run.add_argument(
        "--results",
        metavar="FOLDER",
        type=Path,
        help="where to put what the command leaves in its folder results",
    )
    run.add_argument("--timeout", type=float, default=300, help="in seconds (300)")
    run.add_argument("command", metavar="-- COMMAND", nargs="+")
    test = actions.add_parser(
        "test",
        help="play the guests' scenarios with vmm_arch's backend for KVM",
        description=f"Plays guests' scenarios. Exit status {FAILED} if one fails.",
    )
    test.add_argument(
        "name", nargs="*", help="only those whose names contain this: " + " ".join(NAMES)
    )
    return parser


def _build(machine: Machine) -> int:
    for path in (machine.kernel, *machine.initrd):
        print(path)
    return 0


def _run(machine: Machine, arguments: argparse.Namespace) -> int:
    files: dict[str, bytes | Path] = {"vmm_arch": PRODUCT}
    for pair in arguments.file:
        name, equals, path = pair.partition("=")
        if not equals or not Path(path).exists():
            print(f"machine: --file {pair}: no such file, or not NAME=PATH", file=sys.stderr)
            return UNAVAILABLE
        files[name] = Path(path)
    result = machine.run(files, arguments.command, arguments.timeout)
    sys.stdout.write(result.stdout)
    sys.stderr.write(result.stderr)
    if arguments.results:
        for name, content in result.files.items():
            path = arguments.results / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return result.status


def _test(machine: Machine, parts: list[str]) -> int:
    names = [name for name in NAMES if not parts or any(part in name for part in parts)]
    if not names:
        print(f"machine: no scenario's name contains {' or '.join(parts)}", file=sys.stderr)
        return UNAVAILABLE
    outcomes = play_all(machine, names).outcomes
    for name, outcome in outcomes.items():
        print(f"{'failed' if outcome.failure else 'passed'} {name} ({outcome.seconds:.1f} s)")
        if outcome.failure:
            print("    " + outcome.failure.strip().replace("\n", "\n    "))
    failed = sum(bool(outcome.failure) for outcome in outcomes.values())
    print(f"{len(outcomes) - failed} passed, {failed} failed")
    return FAILED if failed else 0
