"""Finds things by name in the .abi files, without reading more of them than need be."""

from __future__ import annotations

import fnmatch
import platform
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vmm_arch_gen.abi.integers import U64, IntType
from vmm_arch_gen.abi.model import Abi
from vmm_arch_gen.abi.reader import read_abi_file
from vmm_arch_gen.diagnostics import InputError, Problem, did_you_mean, refuse
from vmm_arch_gen.show.calls import CALL, call_value, calls_of

_CPUS = {"amd64": "x86_64", "arm64": "aarch64", "ppc64le": "powerpc64le"}
"""What this host's CPU is called where it is not as the targets call it."""
_FEW = 3
"""How many names are offered instead of one that is not there."""


@dataclass(frozen=True)
class Call:
    """A call of a macro with arguments, and its value."""

    text: str
    value: int
    type: IntType


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
    strings: tuple[str, ...]
    macros: tuple[str, ...]
    """Those that take arguments."""
    calls: tuple[Call, ...]

    def __bool__(self) -> bool:
        return any(
            (
                self.records,
                self.ioctls,
                self.constants,
                self.enums,
                self.typedefs,
                self.functions,
                self.strings,
                self.macros,
                self.calls,
            )
        )


def find(folder: Path, name: str, targets: Sequence[str]) -> tuple[list[Found], list[str]]:
    """What has a name in the given targets, or in one: this host's if that has it.

    Gives the other targets that have it too. ``name`` may hold ``*`` and ``?``, and may say
    ``struct`` or not. It may be a number: of an ioctl, or else the value of constants and
    enumerators, or of a call of a macro; and it may be such a call. InputError gives the nearest
    names that there are.
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
    plain = re.sub(r"^(struct|union|enum) ", "", name)
    searched = {target: texts[target] for target in targets or texts}
    wanted, defining = _searched(plain, searched)
    if not defining:
        plain = plain.partition("(")[0].strip()
        refuse(_left_out(plain, searched.values()))
        where = ", ".join(targets) or "any target"
        raise InputError(_missing(name, plain, where, searched.values()))
    cpu = platform.machine().lower()
    defining.sort(key=lambda t: not t.endswith(_CPUS.get(cpu, cpu)))
    shown = defining if targets else defining[:1]
    found = [
        _find(read_abi_file(folder / f"{target}.abi", exact=False), texts[target], wanted)
        for target in shown
    ]
    return found, defining[len(shown) :]


_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|\d+")


@dataclass(frozen=True)
class _Wanted:
    """Which names, or the ioctls or values of which number."""

    pattern: re.Pattern[str]
    ioctl: int | None = None
    value: int | None = None
    call: str | None = None
    """A call of a macro with arguments, whose name the pattern has."""
    result: int | None = None
    """What a call gives."""


def _searched(plain: str, texts: Mapping[str, str]) -> tuple[_Wanted, list[str]]:
    """What a name or number is looked for as, and the targets that have it."""
    if call := CALL.fullmatch(plain):
        head = re.compile(rf"^macro {call[1]}\(", re.MULTILINE)
        words = set(re.findall(r"\b[A-Za-z_]\w*", plain))
        missing = {
            target: sum(word not in text for word in words)
            for target, text in texts.items()
            if head.search(text)
        }
        fewest = min(missing.values(), default=0)
        found = [target for target, count in missing.items() if count == fewest]
        return _Wanted(re.compile(call[1]), call=plain), found
    if not _NUMBER.fullmatch(plain):
        pattern = re.compile(fnmatch.translate(plain))
        return _Wanted(pattern), [t for t, text in texts.items() if _defines(text, plain, pattern)]
    number = int(plain, 16 if plain[:2] in ("0x", "0X") else 10)
    nothing = re.compile(r"(?!)")
    ioctl = re.compile(rf"^ioctl \w+ = {number:#x} ", re.MULTILINE)
    if found := [target for target, text in texts.items() if ioctl.search(text)]:
        return _Wanted(nothing, ioctl=number), found
    value = re.compile(rf"^(?:constant |  )\w+ = (?:{number:#x}|{number})(?: in |$)", re.MULTILINE)
    if found := [target for target, text in texts.items() if value.search(text)]:
        return _Wanted(nothing, value=number, result=number), found
    found = [target for target, text in texts.items() if next(calls_of(text, number), None)]
    return _Wanted(nothing, result=number), found


_DEFINITION = re.compile(
    r"^(?:  |(?:constant|string|function|struct|union|enum|typedef(?: struct| union| enum)?) )(\w+) "
    r"(?:=|is) |^ioctl (\w+) = (0x[0-9a-f]+)|^macro (\w+)\(",
    re.MULTILINE,
)
"""A line that defines something: its name, or an ioctl's name and number. Others only mention it."""


def defined(text: str) -> set[str]:
    """Every name in an .abi file's text that can be shown, and every ioctl's number."""
    return {word for words in _DEFINITION.findall(text) for word in words if word}


def _defines(text: str, plain: str, pattern: re.Pattern[str]) -> bool:
    if plain.isidentifier() and plain not in text:  # quicker
        return False
    return any(map(pattern.fullmatch, defined(text)))


def _left_out(plain: str, texts: Iterable[str]) -> Iterator[Problem]:
    """Why there is nothing to show of something that the headers do have."""
    for text in texts:
        for line in text.splitlines():
            head, _, rest = line.partition(" in ")
            if head.startswith("omitted ") and plain in head.split(" ")[2:]:
                yield Problem(plain, f"left out of {rest}", "only the header itself has it")


def _missing(name: str, plain: str, where: str, texts: Iterable[str]) -> Problem:
    texts = list(texts)
    if _NUMBER.fullmatch(plain):
        what = f"nothing in the headers of {where} has this number or value"
        return Problem(name, what, "a name, or part of one as '*NAME*', is found as well")
    if records := _with_member(plain, texts):
        listed = ", ".join(records[:_FEW]) + ", ..." * (len(records) > _FEW)
        remedy = f"show {records[0]}" if len(records) == 1 else "show one of them"
        return Problem(name, f"is not a name of its own, but a member of {listed}", remedy)
    from difflib import get_close_matches  # not at the top: few runs need it

    spellings: dict[str, list[str]] = {}
    for known in sorted(set().union(*map(defined, texts))):
        spellings.setdefault(known.lower(), []).append(known)
    near = get_close_matches(plain.lower(), spellings, n=_FEW)
    nearest = [
        name
        for key in near
        for name in sorted(spellings[key], key=lambda n: n.isupper() != plain.isupper())
    ]
    remedy = (
        f"did you mean {' or '.join(nearest[:_FEW])}?"
        if near
        else "a wildcard finds parts of names: '*NAME*';"
    )
    what = f"no such name in the headers of {where}"
    return Problem(name, what, f"{remedy} .abi files have all names")


def _with_member(plain: str, texts: Iterable[str]) -> list[str]:
    """The records that have a member of that name."""
    if not plain.isidentifier():
        return []
    member = re.compile(rf"@ [\d.:]+ (?:\w+, )*{plain}(?:, \w+)* \S")
    records: dict[str, None] = {}
    for text in texts:
        if plain in text:
            for block in re.split(r"^(?=\S)", text, flags=re.MULTILINE):
                if (head := _DEFINITION.match(block)) and member.search(block):
                    records[head[1]] = None
    return list(records)


def _find(abi: Abi, text: str, wanted: _Wanted) -> Found:
    def named(names: Iterator[str]) -> tuple[str, ...]:
        return tuple(n for n in names if wanted.pattern.fullmatch(n.rpartition(" ")[2]))

    values = [(c.name, c.value) for c in abi.constants]
    values += [value for enum in abi.enums.values() for value in enum.enumerators]
    return Found(
        abi,
        named(key for key, record in abi.records.items() if not record.unnamed),
        tuple(
            i.name
            for i in abi.ioctls
            if wanted.pattern.fullmatch(i.name) or i.value == wanted.ioctl
        ),
        tuple(n for n, v in values if wanted.pattern.fullmatch(n) or v == wanted.value),
        named(key for key in abi.enums if "<" not in key),
        named(iter(abi.typedefs)),
        named(f.name for f in abi.functions),
        named(s.name for s in abi.strings),
        named(m.name for m in abi.macros),
        tuple(_calls(abi, text, wanted)),
    )


def _calls(abi: Abi, text: str, wanted: _Wanted) -> Iterator[Call]:
    if wanted.call is not None:
        yield Call(wanted.call, *call_value(abi, wanted.call))
    if wanted.result is not None:
        yield from (Call(call, wanted.result, U64) for call in calls_of(text, wanted.result))
