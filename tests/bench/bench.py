"""Measures what the project promises to be fast, beside something comparable in the same run.

Every figure is a median (and minimum) over runs that alternate with those of what it is compared
with. Nothing here fails: it prints the figures, and what was promised, for people to read.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from adding import adding
from figures import alternate, ratio, report
from forks import forks
from reset import resetting
from vcpu import arch_functions
from vmm_arch_gen.abi.model import Abi
from vmm_arch_gen.abi.reader import read_abi_file
from vmm_arch_gen.generate.abi_module import abi_module
from vmm_arch_gen.generate.ctypes_records import CtypesRecord
from vmm_arch_gen.generate.generate import MOST_PROCESSES
from vmm_arch_gen.project import project
from vmm_arch_gen.targets import load_targets
from writes import writing

GENERATOR = [sys.executable, "-m", "vmm_arch_gen"]


def seconds(command: list[str], **environment: str) -> float:
    start = time.perf_counter()
    subprocess.run(command, env=os.environ | environment, check=True, capture_output=True)
    return time.perf_counter() - start


def extraction() -> None:
    """Everything, what the command reports for each target of it, and one target as it is asked for."""
    everything = [*GENERATOR, "extract", "--check"]
    seconds(everything)  # fills the compiler's and the system's caches
    times: list[float] = []
    inside: dict[str, list[float]] = {}
    for _ in range(5):
        start = time.perf_counter()
        done = subprocess.run(everything, check=True, capture_output=True, text=True)
        times.append(time.perf_counter() - start)
        for name, said in re.findall(r"^(\w+): .* proven in ([\d.]+) s", done.stderr, re.M):
            inside.setdefault(name, []).append(float(said))
    report(f"extract and prove all {len(inside)} targets", times, "12")
    for name in sorted(inside, key=lambda name: -max(inside[name])):
        report(f"  of that, {name}", inside[name], "1.5")
    for name in ("kvm_x86_64", max(inside, key=lambda name: max(inside[name]))):
        command = [*everything, "-q", "--only", name]
        report(f"extract and prove {name} alone", [seconds(command) for _ in range(5)], "1.5")


def reading() -> None:
    """The commands that are to answer at once, whatever there is to look through."""
    for what in (
        ["show", "kvm_regs"],
        ["show", "*REG*"],
        ["show", "no_such_name"],
        ["diff", "HEAD"],
    ):
        command = [*GENERATOR, *what]
        times = []
        for _ in range(5):
            start = time.perf_counter()
            subprocess.run(command, check=False, capture_output=True)
            times.append(time.perf_counter() - start)
        report(" ".join(what), times, "0.5")


def generation() -> None:
    checkout = project().checkout
    assert checkout is not None
    modules = [str(path) for path in (checkout / "generated").rglob("*.py")]
    black = [sys.executable, "-m", "black", "-q", "--no-cache", "--check", *modules]
    check = [*GENERATOR, "generate", "--check", "-q"]

    def cold(*command: str) -> float:
        with tempfile.TemporaryDirectory() as cache:
            return seconds([*GENERATOR, "generate", "-q", *command], XDG_CACHE_HOME=cache)

    def into_an_empty_folder() -> float:
        with tempfile.TemporaryDirectory() as folder:
            return cold("--output", folder)

    times = alternate(
        5,
        {
            "black": lambda: seconds(black),
            "generate": into_an_empty_folder,
            "check": lambda: cold("--check"),
            "unchanged": lambda: seconds(check),
        },
    )
    report(f"black alone, the same {len(modules)} modules", times["black"], "-")
    ratio("generate everything, to black", times["generate"], times["black"], "1.2 at most")
    ratio("--check, nothing remembered, to black", times["check"], times["black"], "1.2 at most")
    report("nothing changed, the second time", times["unchanged"], "2 s at most")
    targets = len(load_targets(project().targets_file).targets)
    processes = 1 + min(targets, os.cpu_count() or 1, MOST_PROCESSES)
    largest = largest_process()
    print(
        f"largest process of generate {largest:.0f} MB; {processes} at once at most"
        f" {largest * processes:.0f} MB   promised: 500 at most"
    )


def largest_process() -> float:
    """How much memory the largest process takes that generates everything, in MB."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*GENERATOR, "generate", "-q", "--output", folder]
        code = (
            "import resource, subprocess;"
            f"subprocess.run({command!r}, check=True);"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"XDG_CACHE_HOME": folder},
            check=True,
            capture_output=True,
            text=True,
        )
    return int(done.stdout) / 1024


def minimal_module(abi: Abi, records: Iterable[CtypesRecord]) -> str:
    """What somebody would write by hand: the same records and constants and nothing else."""
    lines = ["from ctypes import *"]
    lines += [f"{c.name} = {c.value}" for c in abi.constants]
    lines += [
        f"{name} = {value}" for enum in abi.enums.values() for name, value in enum.enumerators
    ]
    lines += [f"{ioctl.name} = {ioctl.value}" for ioctl in abi.ioctls]
    for record in records:
        base = "Union" if record.record.kind == "union" else "Structure"
        anonymous = tuple(f.name for f in record.fields if f.role == "unnamed")
        named = [f for f in record.fields if f.role != "filler"]
        bits = ["" if f.bits is None else f", {f.bits}" for f in named]
        listed = [
            f"('{f.name}', {f.type.expression()}{b})" for f, b in zip(named, bits, strict=True)
        ]
        lines.append(f"class {record.name}({base}):")
        if anonymous:
            lines.append(f"    _anonymous_ = {anonymous!r}")
        lines.append(f"    _fields_ = [{', '.join(listed)}]")
    return "\n".join(lines) + "\n"


def importing() -> None:
    paths = project()
    assert paths.checkout is not None
    target = "kvm_x86_64"
    abi = read_abi_file(paths.abi / f"{target}.abi")
    records = abi_module(abi).records
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "minimal.py").write_text(minimal_module(abi, records))
        path = os.pathsep.join([folder, str(paths.checkout / "generated")])

        def imported(module: str) -> float:
            code = (
                "import ctypes, time, vmm_arch.abi; start = time.perf_counter();"
                f"import {module}; print(time.perf_counter() - start)"
            )
            done = subprocess.run(
                [sys.executable, "-c", code],
                env={"PYTHONPATH": path},
                check=True,
                capture_output=True,
                text=True,
            )
            return float(done.stdout)

        contestants = {name: name for name in ("minimal", f"vmm_arch.abi.{target}")}
        for name in contestants:
            imported(name)  # writes the bytecode
        times = alternate(40, {name: partial(imported, name) for name in contestants})
    ours, theirs = times[f"vmm_arch.abi.{target}"], times["minimal"]
    report(f"import vmm_arch.abi.{target}", ours, "-", 1e-3, "ms")
    report("import a minimal module with the same records", theirs, "-", 1e-3, "ms")
    ratio("import, to the minimal module", ours, theirs, "1.40 at most")


def main() -> None:
    print(f"{'':52}   median  minimum      ({os.cpu_count()} cores)")
    for measure in (
        arch_functions,
        writing,
        resetting,
        adding,
        forks,
        importing,
        generation,
        extraction,
        reading,
    ):
        measure()


if __name__ == "__main__":
    main()
