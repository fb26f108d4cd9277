"""Runs kvm-unit-tests over this package's API and in QEMU, and compares.

    nox -s kvm_unit_tests -- FOLDER [PATTERN ...]

FOLDER is a checkout of kvm-unit-tests that was built (./configure && make), or a folder with its
unittests.cfg and images (*.flat). Without QEMU only this package's machine is used.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # run as a command: imports begin in the folder above
    _TESTS = Path(__file__).resolve().parents[1]
    sys.path[:1] = [str(_TESTS), str(_TESTS / "support")]

from kvm_unit_tests import configuration, processor
from kvm_unit_tests.comparison import GRACE, TIMEOUT, Outcome, differences, outcome
from kvm_unit_tests.configuration import ConfigurationError, Test
from kvm_unit_tests.machine import environment
from kvm_unit_tests.processor import Unsupported

MACHINE = Path(__file__).with_name("machine.py")
DIFFERENT, WRONG_USE, UNFINISHED = 1, 2, 3
SHOWN = 8
"""How many differences of a program are shown."""
MESSAGES = 3
"""How many lines of standard error are shown."""
ONLY_QEMU = {"s3.flat": "sleeps (S3), which takes firmware to wake up"}
"""By the image's name: what it wants that its parameters do not say."""
# As kvm-unit-tests' x86/run, but for the PCI device: nothing of ours is on a PCI bus.
QEMU = (
    *("--no-reboot", "-nodefaults", "-display", "none", "-serial", "stdio"),
    *("-machine", "accel=kvm", "-global", "kvm-pit.lost_tick_policy=discard"),
    *("-device", "pc-testdev", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x4"),
)
EPILOG = f"""\
For each program: how it ended here and in QEMU (exit status, lines with a verdict, time), and
whether both are the same. Lines are compared without the numbers in them. Both machines have the
processor that the hypervisor can show; -cpu in unittests.cfg only adds, takes away and names.

exit status: 0 all the same (without QEMU: none failed), {DIFFERENT} not all, {WRONG_USE} wrong use,
{UNFINISHED} none is different, but QEMU's time was over for some (--timeout)
"""


@dataclass(frozen=True, slots=True)
class Commands:
    """How to run a program here and in QEMU."""

    ours: tuple[str, ...]
    qemu: tuple[str, ...] | None


def commands(
    test: Test, timeout: float, hypervisor: str, qemu: str | None, environ: Path
) -> Commands:
    """Make the commands for a test; raise Unsupported if it wants what is not here."""
    wish = processor.read(test.parameters)
    ours = [sys.executable, str(MACHINE), "--hypervisor", hypervisor, "--cpus", test.smp]
    ours += ["--memory", str(wish.memory), "--cpu", wish.processor, "--timeout", str(timeout)]
    ours += [str(test.image), "--", *test.arguments.split()]
    if qemu is None:
        return Commands(tuple(ours), None)
    theirs = [qemu, *QEMU, "-cpu", wish.processor, "-m", str(wish.memory), "-smp", test.smp]
    theirs += ["-kernel", str(test.image), "-initrd", str(environ), *wish.others]
    theirs += ["-append", test.arguments] if test.arguments else []
    return Commands(tuple(ours), tuple(theirs))


def selected(tests: Sequence[Test], patterns: Sequence[str], group: str | None) -> list[Test]:
    """The tests that are asked for: by name, by group, or all that are run by default."""
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(test.name, pattern) for test in tests):
            raise ConfigurationError(f"no test is called {pattern}; --list shows their names")
    if group is not None and not any(group in test.groups for test in tests):
        raise ConfigurationError(f"no test is in the group {group}; --list shows the groups")
    return [
        test
        for test in tests
        if (
            any(fnmatch.fnmatchcase(test.name, pattern) for pattern in patterns)
            if patterns
            else group in test.groups if group is not None else "nodefault" not in test.groups
        )
    ]


class Table:
    """Prints a row for each test as soon as it is known, and counts."""

    def __init__(self, tests: Sequence[Test], qemu: bool) -> None:
        self._width = max((len(test.name) for test in tests), default=0)
        self._qemu = qemu
        self.same = self.different = self.unfinished = self.skipped = self.failed = 0

    def skip(self, test: Test, why: str) -> None:
        self.skipped += 1
        print(f"{test.name:{self._width}}  not run: {why}", flush=True)

    def row(self, test: Test, ours: Outcome, theirs: Outcome | None) -> None:
        self.failed += ours.verdict not in ("pass", "skip")
        cells = f"{test.name:{self._width}}  {ours!s:40}"
        if theirs is None:
            print(cells.rstrip(), flush=True)
            found: list[str] = []
        else:
            found = differences(ours, theirs)
            if not found:
                self.same += 1
                said = "same"
            elif theirs.status == TIMEOUT:  # it might have become the same
                self.unfinished += 1
                said, found = "unfinished", ["QEMU's time was over: give more with --timeout"]
            else:
                self.different += 1
                said = "DIFFERENT"
            print(f"{cells}  {theirs!s:40}  {said}", flush=True)
        for line in found[:SHOWN]:
            print(f"    {line}")
        if len(found) > SHOWN:
            print(f"    and {len(found) - SHOWN} more")
        if found or theirs is None:
            for name, errors in (("", ours.errors), ("QEMU: ", theirs.errors if theirs else "")):
                for line in errors.splitlines()[-MESSAGES:]:
                    print(f"    {name}{line}")

    def end(self) -> int:
        """Print the sums, and return the exit status."""
        if self._qemu:
            print(
                f"{self.same} same, {self.different} different, {self.unfinished} unfinished,"
                f" {self.skipped} not run"
            )
            return DIFFERENT if self.different else UNFINISHED if self.unfinished else 0
        print(f"{self.failed} failed, {self.skipped} not run; there is no QEMU to compare with")
        return DIFFERENT if self.failed else 0


def run(options: argparse.Namespace) -> int:
    """Do what the command line says, and return the exit status."""
    file, images = configuration.find(options.folder)
    tests = selected(configuration.read(file, images), options.pattern, options.group)
    if options.list:
        for test in tests:
            print(f"{test.name}  {' '.join(test.groups)}".rstrip())
        return 0
    if not os.access("/dev/kvm", os.R_OK | os.W_OK) and options.hypervisor == "kvm":
        raise ConfigurationError("there is no read and write access to /dev/kvm")
    qemu = None if options.no_qemu else shutil.which(options.qemu)
    if qemu is None and not options.no_qemu:
        print(f"runner.py: there is no {options.qemu}: nothing to compare with", file=sys.stderr)
    table = Table(tests, qemu is not None)
    with ExitStack() as stack:
        environ = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "environ"
        environ.write_bytes(environment())
        for test in tests:
            timeout = options.timeout or test.timeout
            try:
                if why := test.obstacle() or ONLY_QEMU.get(test.image.name):
                    raise Unsupported(why)
                both = commands(test, timeout, options.hypervisor, qemu, environ)
            except Unsupported as reason:
                table.skip(test, str(reason))
                continue
            ours = outcome(both.ours, timeout + GRACE)
            theirs = None if both.qemu is None else outcome(both.qemu, timeout)
            table.row(test, ours, theirs)
            if options.output is not None:
                keep(options.output, test, ours, theirs)
    return table.end()


def keep(folder: Path, test: Test, ours: Outcome, theirs: Outcome | None) -> None:
    """Write down all that was said, to look at differences."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, one in (("ours", ours), ("qemu", theirs)):
        if one is not None:
            (folder / f"{test.name}.{name}").write_text(one.output + one.errors)


def main() -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="runner.py",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where the programs are")
    parser.add_argument(
        "pattern", nargs="*", metavar="PATTERN", help="names of tests, with * and ? for any text"
    )
    parser.add_argument("-g", "--group", help="run the tests of a group")
    parser.add_argument("--list", action="store_true", help="name the tests, and run none")
    parser.add_argument(
        "--timeout", type=float, metavar="SECONDS", help="for each, instead of its own"
    )
    parser.add_argument(
        "--qemu",
        default="qemu-system-x86_64",
        metavar="PROGRAM",
        help="what to compare with (%(default)s)",
    )
    parser.add_argument("--no-qemu", action="store_true", help="compare with nothing")
    parser.add_argument("--hypervisor", choices=["kvm", "whp"], default="kvm", help="(%(default)s)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="keep what the programs said")
    options = parser.parse_intermixed_args()
    try:
        return run(options)
    except ConfigurationError as error:
        print(f"runner.py: {error}", file=sys.stderr)
        return WRONG_USE


if __name__ == "__main__":
    sys.exit(main())
