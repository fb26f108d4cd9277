"""Linux' UAPI headers, each as a target of its own: what the extractor refuses of them.

Run by hand it reads all of them, which takes minutes: ``python tests/generator/uapi.py``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from vmm_arch_gen.diagnostics import InputError, Problem
from vmm_arch_gen.extract.extract import extract
from vmm_arch_gen.extract.missing import MissingName
from vmm_arch_gen.extract.toolchain import find_toolchain
from vmm_arch_gen.project import project
from vmm_arch_gen.targets import load_targets

TABLE = load_targets(project().targets_file)
TARGET = dataclasses.replace(TABLE.targets["kvm_x86_64"], prelude="", defines=())
FOLDER = find_toolchain(TARGET, TABLE.package).folders[-1]


def all_headers() -> list[str]:
    return sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.h"))


def refused(header: str) -> list[Problem]:
    """What the extractor says of one header alone."""
    target = dataclasses.replace(TARGET, headers=(header,))
    try:
        extract(target, find_toolchain(target, TABLE.package))
    except InputError as error:
        return list(error.problems)
    return []


def is_its_own_fault(problem: Problem) -> bool:
    """Whether the header alone is nothing that a compiler could read either."""
    missing_header = "is in none of the include folders" in problem.what
    error_directive = problem.what.startswith('the compiler says: "')
    return isinstance(problem, MissingName) or missing_header or error_directive


def count(headers: Iterable[str]) -> tuple[int, int, list[Problem]]:
    """Headers read, headers that are incomplete by themselves, and what is refused of the others."""
    read = incomplete = 0
    faults: list[Problem] = []
    with ProcessPoolExecutor() as pool:
        for problems in pool.map(refused, headers, chunksize=8):
            read += not problems
            incomplete += bool(problems) and all(map(is_its_own_fault, problems))
            faults += [problem for problem in problems if not is_its_own_fault(problem)]
    return read, incomplete, faults


if __name__ == "__main__":
    complete, incomplete, faults = count(all_headers())
    print(f"{Path(FOLDER).name}: {complete} read, {incomplete} incomplete, {len(faults)} refused")
    print("\n".join(map(str, faults)))
