"""Finds things by name in the .abi files, without reading more of them than need be."""

from __future__ import annotations

import fnmatch
import platform
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vmm_arch_gen.abi.model import Abi
from vmm_arch_gen.abi.text import read_abi_file
from vmm_arch_gen.diagnostics import InputError, Problem, did_you_mean, refuse

_CPUS = {"amd64": "x86_64", "arm64": "aarch64", "ppc64le": "powerpc64le"}
"""What this machine's CPU is called where it is not as the targets call it."""


@dataclass(frozen=True)
class Found:
    """What has a name, in one target."""

    abi: Abi
    records: tuple[str, ...]
    ioctls: tuple[str, ...]
    constants: tuple[str, ...]
    enums: tuple[str, ...]
    typedefs: tuple[str, ...]
    functions: tuple[str, ...]

    def __bool__(self) -> bool:
        return any(
            (self.records, self.ioctls, self.constants, self.enums, self.typedefs, self.functions)
        )


def find(folder: Path, name: str, targets: Sequence[str]) -> tuple[list[Found], list[str]]:
    """What has a name in the given targets, or in one: this machine's if that has it.

    Gives the other targets that have it too. ``name`` may hold ``*`` and ``?``, may be an ioctl's
    number, and may say ``struct`` or not. InputError gives the nearest names that there are.
    """
    texts = {path.stem: path.read_text() for path in sorted(folder.glob("*.abi"))}
    if not texts:
        remedy = "run: vmm-arch-gen extract, or name a folder with --abi DIR"
        raise InputError(Problem(str(folder), "there are no .abi files here", remedy))
    refuse(
        Problem(
            f"--target {target}",
            "there is no such target",
            f"{did_you_mean(target, texts)}targets: {', '.join(texts)}",
        )
        for target in targets
        if target not in texts
    )
    pattern = _pattern(name)
    mentioning = [t for t in targets or texts if _mentions(texts[t], name, pattern)]
    cpu = platform.machine().lower()
    mentioning.sort(key=lambda t: not t.endswith(_CPUS.get(cpu, cpu)))
    found: list[Found] = []
    for number, target in enumerate(mentioning):
        things = _find(read_abi_file(folder / f"{target}.abi"), pattern)
        if things:
            found.append(things)
            if not targets:
                return found, mentioning[number + 1 :]
    if not found:
        known = {word for t in targets or texts for word in _words(texts[t])}
        what = "nothing in the headers is called so"
        where = f"in {', '.join(targets)}" if targets else "in any target"
        remedy = did_you_mean(name, known) or "a wildcard finds parts of names: '*NAME*'; "
        raise InputError(Problem(name, f"{what} {where}", f"{remedy}.abi files have all names"))
    return found, []


def _pattern(name: str) -> re.Pattern[str]:
    plain = re.sub(r"^(struct|union|enum) ", "", name)
    if re.fullmatch(r"0[xX][0-9a-fA-F]+", plain):
        return re.compile(re.escape(plain.lower()))
    return re.compile(fnmatch.translate(plain))


def _mentions(text: str, name: str, pattern: re.Pattern[str]) -> bool:
    """Whether a name is anywhere in a text, which is quicker to tell than what it is there."""
    if name.isidentifier():
        return name in text
    return any(map(pattern.fullmatch, _words(text)))


def _words(text: str) -> set[str]:
    """Everything in a text that can be a name, or a number in hexadecimal."""
    return set(re.findall(r"\w+", text))


def _find(abi: Abi, pattern: re.Pattern[str]) -> Found:
    def named(names: Iterator[str]) -> tuple[str, ...]:
        return tuple(n for n in names if pattern.fullmatch(n.rpartition(" ")[2]))

    enumerators = (n for enum in abi.enums.values() for n, _ in enum.enumerators)
    return Found(
        abi,
        named(key for key, record in abi.records.items() if not record.unnamed),
        tuple(
            i.name
            for i in abi.ioctls
            if pattern.fullmatch(i.name) or pattern.fullmatch(hex(i.value))
        ),
        named(n for n in (*(c.name for c in abi.constants), *enumerators)),
        named(key for key in abi.enums if "<" not in key),
        named(iter(abi.typedefs)),
        named(f.name for f in abi.functions),
    )
