"""One target's headers, read: everything that they declare, laid out and evaluated, unproven."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from vmm_arch_gen.abi.ioctls import misread
from vmm_arch_gen.abi.model import Abi, Omission, VerifiedAbi
from vmm_arch_gen.abi.reader import read_abi
from vmm_arch_gen.abi.writer import write_abi
from vmm_arch_gen.diagnostics import InputError, refuse
from vmm_arch_gen.extract.ioctls import makes_ioctl
from vmm_arch_gen.extract.left_out import Omitted, empty, left_out
from vmm_arch_gen.extract.macros import candidates, fold
from vmm_arch_gen.extract.missing import suggesting
from vmm_arch_gen.extract.origin import describe_origin
from vmm_arch_gen.extract.parse import parse
from vmm_arch_gen.extract.preprocess import Macro, expand, preprocess
from vmm_arch_gen.extract.shims import without_unneeded
from vmm_arch_gen.extract.toolchain import Toolchain, find_toolchain
from vmm_arch_gen.extract.translation_unit import read_declarations
from vmm_arch_gen.extract.verify import verify
from vmm_arch_gen.targets import Package, Target

_ANOTHER = "a macro of that name stands for something else"


def extract(target: Target, toolchain: Toolchain) -> Abi:
    """Read a target's headers; InputError lists what in them cannot be read."""
    with suggesting(toolchain.searched):
        return _extract(target, toolchain)


def _extract(target: Target, toolchain: Toolchain) -> Abi:
    shims = (target.shims,) if target.shims else ()
    source = preprocess(target, toolchain, shims)
    declarations = read_declarations(parse(source.text), target.model)
    declarations.leave_out_functions(_redirected(source.macros), _ANOTHER)
    names, ioctls = candidates(source.macros), makes_ioctl(source.macros)
    expansions = expand(target, toolchain, shims, names, ioctls)
    folded = fold(source.macros, expansions, declarations)
    omissions = {*declarations.omissions, *folded.omissions}
    abi = Abi(
        target=target.name,
        model=target.model,
        origin=describe_origin(target, toolchain),
        headers=source.headers,
        headers_digest=source.headers_digest,
        constants=folded.constants,
        enums=declarations.enums,
        functions=tuple(sorted(declarations.functions.values(), key=lambda f: f.name)),
        ioctls=folded.ioctls,
        records=declarations.records,
        typedefs=declarations.typedefs,
        omissions=tuple(sorted(omissions, key=_omission_order)),
        layouts={key: declarations.layouts.record(key) for key in declarations.records},
        strings=folded.strings,
        ioctl_rules=target.ioctl_rules,
        macros=folded.macros,
    )
    refuse(misread(abi))
    return abi


def _redirected(macros: Mapping[str, Macro]) -> list[str]:
    """The names that macros without parameters make something else of."""
    return [m.name for m in macros.values() if m.parameters is None and m.body != m.name]


def _omission_order(omission: Omission) -> tuple[str, str, str, str]:
    return omission.kind, omission.header, omission.reason, omission.name


def _prove(abi: Abi, target: Target, toolchain: Toolchain) -> VerifiedAbi:
    """Prove the facts; those of a shim that the target's headers lack are none if nothing uses them."""
    try:
        return verify(abi, target, toolchain)
    except InputError as error:
        needed = without_unneeded(abi)
        of_shims = any(problem.where.startswith("shim:") for problem in error.problems)
        if needed == abi or not of_shims:
            raise
    return verify(needed, target, toolchain)


def extract_and_prove(
    target: Target,
    package: Package,
    include: Sequence[Path],
    cc: str | None,
    omitted: Omitted = "not",
) -> tuple[bytes, tuple[str, ...]]:
    """Extract and prove one target: its .abi file, and lines that say what is in it and what not."""
    start = time.perf_counter()
    toolchain = find_toolchain(target, package, include=include, cc=cc)
    read = extract(target, toolchain)
    with suggesting(toolchain.searched):
        abi = _prove(read, target, toolchain)
    refuse(empty(abi, target))
    seconds = time.perf_counter() - start
    enumerators = sum(len(enum.enumerators) for enum in abi.enums.values())
    summary = (
        f"{target.name}: {len(abi.records)} records,"
        f" {len(abi.constants) + enumerators + len(abi.strings)} constants, {len(abi.ioctls)} ioctls,"
        f" {len(abi.macros)} macros and {len(abi.functions)} functions proven in {seconds:.1f} s ({abi.origin})"
    )
    text = write_abi(abi)
    read_abi(text, f"{target.name}.abi", target.name)  # refuses what could not be read back
    return text.encode(), (summary, *left_out(abi, target, omitted))
