"""``vmm-arch selftest``: runs test guests on this host's hypervisor and writes a report."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from vmm_arch.command import backends
from vmm_arch.command.cpu import Cpu
from vmm_arch.command.host import about_host
from vmm_arch.command.messages import report_error
from vmm_arch.errors import HypervisorUnavailableError
from vmm_arch.protocols.common import Backend
from vmm_arch.report import Report
from vmm_arch.selftest.play import Outcome, Suite

FAILED: Final = 1
UNAVAILABLE: Final = 2

EPILOG: Final = """\
This needs only a hypervisor: the guests' code is part of the package. Please send the file that
--report writes to the project, which adds your host to its table of what has been proven.

exit status:
  0  every scenario passed, except those that the host cannot play
  1  one failed
  2  usage error, or no hypervisor; the message says what to do
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "pattern",
        nargs="*",
        default=["*"],
        help="run only the scenarios whose names match, such as 'mmio*'",
    )
    backends.add_argument(parser)
    parser.add_argument("--list", action="store_true", help="list the scenarios' names and exit")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write a report as JSON")
    parser.add_argument(
        "--patience",
        type=float,
        default=1,
        metavar="N",
        help="multiply each scenario's time limit by N, for a slow host",
    )


def selftest(options: argparse.Namespace) -> int:
    """Run the scenarios and return the exit status."""
    try:
        suite = backends.suite()
    except backends.MissingPartError as error:
        report_error("selftest", error)
        return UNAVAILABLE
    names = [n for n in suite.names if any(fnmatchcase(n, pattern) for pattern in options.pattern)]
    if not names:
        print(f"vmm-arch selftest: no scenario matches {options.pattern}", file=sys.stderr)
        return UNAVAILABLE
    if options.list:
        print(*names, sep="\n")
        return 0
    try:
        arch, cpu = backends.backend(options.hypervisor), backends.cpu()
        about = _about(options.hypervisor, arch, cpu)
        for key, value in about.items():
            print(f"{key:12} {value}")
        for operation, reason in arch.UNSUPPORTED.items():
            print(f"{'unsupported':12} {operation}: {reason}")
        outcomes = _play(suite, arch, names, options.patience)
    except (HypervisorUnavailableError, ValueError) as error:
        report_error("selftest", error)
        return UNAVAILABLE
    failed = [outcome.name for outcome in outcomes if outcome.failure]
    left_out = [outcome.name for outcome in outcomes if outcome.lacking]
    passed = len(outcomes) - len(failed) - len(left_out)
    more = f", {len(left_out)} left out" if left_out else ""
    print(f"{passed} passed, {len(failed)} failed{more}")
    if options.report:
        scenarios = {
            o.name: {"failure": o.failure, "seconds": o.seconds, "lacking": o.lacking}
            for o in outcomes
        }
        probe = arch.probe()
        probe = Report(probe.hypervisor, (*probe.checks, cpu.operating_system(arch)))
        report = {
            "about": about,
            "probe": str(probe),
            "unsupported": dict(arch.UNSUPPORTED),
            "scenarios": scenarios,
        }
        options.report.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return FAILED if failed else 0


def _play(suite: Suite, arch: Backend, names: Sequence[str], patience: float) -> list[Outcome]:
    outcomes = []
    for outcome in suite.play(arch, names, patience=patience):
        outcomes.append(outcome)
        if outcome.lacking:
            print(f"left out {outcome.name}: {outcome.lacking}", flush=True)
            continue
        verdict = "FAILED" if outcome.failure else "passed"
        print(f"{verdict} {outcome.name} ({outcome.seconds:.2f} s)", flush=True)
        if outcome.failure:
            print("    " + outcome.failure.strip().replace("\n", "\n    "), flush=True)
    return outcomes


def _about(hypervisor: str, arch: Backend, cpu: Cpu) -> dict[str, str]:
    """Identify the host: what may affect a guest."""
    try:
        package = version("vmm-arch")
    except PackageNotFoundError:  # used from its folder, without being installed
        package = "not installed"
    return {
        "vmm-arch": package,
        "hypervisor": hypervisor,
        "signature": cpu.signature(arch),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        **about_host(cpu.processor(arch), cpu.is_virtual),
    }
