"""Compares executors after each step, and explains what differs by the rules of quirks.toml."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from differential.executors import Elements, Executor, Step
from differential.guests import GATES, HANDLERS, HLT, MEMORY, PAGE, Guest

RULES = Path(__file__).with_name("quirks.toml")
KINDS = ("undefined", "cannot", "memory", "reads", "accesses", "apart")
_KEYS = {"name", "kind", "executors", "instructions", "elements", "bits"}
_KEYS |= {"bytes", "vectors", "says", "devices", "because", "source"}
_NEEDED = {"name", "kind", "instructions", "because", "source"}
_DOUBLE_FAULT = 8
_PRESENT = 1 << 7

Instruction = Callable[[bytes, str, int], str]
"""The text of the instruction that some bytes begin with, in a mode, at an address."""


class Event(NamedTuple):
    """A step whose states differ."""

    executors: tuple[str, ...]
    instruction: str
    vectors: frozenset[int]
    """The exceptions that one of them raised."""
    devices: bool
    """Whether there were accesses of ports or devices."""


@dataclass(frozen=True)
class Rule:
    """One quirk: where executors may differ."""

    name: str
    kind: str
    """``undefined`` elements; an executor that ``cannot`` execute it; ``memory`` that differs;
    ``accesses`` that do, or only ``reads``; executors
    that come ``apart`` here, so that the rest of the guest is nothing to compare."""
    instructions: re.Pattern[str]
    because: str
    source: str
    executors: frozenset[str] = frozenset()
    """It concerns pairs with one of these; all if there are none."""
    elements: re.Pattern[str] | None = None
    mask: int = -1
    """The bits of the elements, or of each byte of memory, that may differ."""
    devices: bool = False
    """Whether it concerns only steps that access ports or devices."""
    says: re.Pattern[str] = re.compile("")
    """What the executor that cannot says."""
    vectors: frozenset[int] = frozenset()
    """If there are any it concerns only steps that raised one of these exceptions."""

    def concerns(self, event: Event) -> bool:
        return (
            (not self.executors or not self.executors.isdisjoint(event.executors))
            and (event.devices or not self.devices)
            and (not self.vectors or not self.vectors.isdisjoint(event.vectors))
            and self.instructions.fullmatch(event.instruction) is not None
        )


class RulesError(Exception):
    """What is wrong with the file of rules, all of it."""


def read_rules(text: str, bits: Mapping[str, Mapping[str, int]]) -> tuple[Rule, ...]:
    """The rules of a file. Raises RulesError."""
    problems: list[str] = []
    rules: list[Rule] = []
    names: set[str] = set()
    for number, entry in enumerate(tomllib.loads(text).get("rule", []), 1):
        where = entry.get("name", f"rule {number}")
        problems += [f"{where}: {key} is unknown" for key in entry.keys() - _KEYS]
        missing = sorted(_NEEDED - entry.keys())
        problems += [f"{where}: {key} is missing" for key in missing]
        if missing:
            continue
        if where in names:
            problems.append(f"{where}: a duplicate name")
        names.add(where)
        if entry["kind"] not in KINDS:
            problems.append(f"{where}: kind is one of {', '.join(KINDS)}")
        if ("elements" in entry) != (entry["kind"] == "undefined"):
            problems.append(f"{where}: elements are what an undefined one needs, and no other")
        mask = -1
        if "bits" in entry:
            known = bits.get(entry.get("elements", ""), {})
            unknown = [name for name in entry["bits"] if name not in known]
            problems += [
                f"{where}: {name} is no bit of {entry.get('elements')}" for name in unknown
            ]
            mask = sum(1 << known[name] for name in entry["bits"] if name in known)
        mask = entry.get("bytes", mask)
        try:
            rules.append(
                Rule(
                    where,
                    entry["kind"],
                    re.compile(entry["instructions"]),
                    entry["because"],
                    entry["source"],
                    executors=frozenset(entry.get("executors", ())),
                    elements=re.compile(entry["elements"]) if "elements" in entry else None,
                    mask=mask,
                    devices=entry.get("devices", False),
                    says=re.compile(entry.get("says", "")),
                    vectors=frozenset(entry.get("vectors", ())),
                )
            )
        except re.error as error:
            problems.append(f"{where}: {error}")
    if problems:
        raise RulesError("\n".join(problems))
    return tuple(rules)


@dataclass(frozen=True)
class Finding:
    """A difference that no rule explains."""

    guest: Guest
    executors: tuple[str, str]
    step: int
    instruction: str
    differences: tuple[str, ...]
    before: Elements = field(repr=False)
    """The state of the first executor before the step, and the memory that had been written."""
    memory: Mapping[int, bytes] = field(repr=False)

    def __str__(self) -> str:
        return (
            f"{self.executors[0]} and {self.executors[1]} differ after step {self.step} in"
            f" {self.guest.mode} mode, {self.instruction}: {'; '.join(self.differences)}"
        )


@dataclass
class Tally:
    """What was done."""

    guests: int = 0
    steps: int = 0
    compared: Counter[str] = field(default_factory=Counter)
    """Steps by pair of executors."""
    used: Counter[str] = field(default_factory=Counter)
    """Steps by rule."""
    ends: Counter[str] = field(default_factory=Counter)
    instructions: Counter[str] = field(default_factory=Counter)


class Comparison:
    """Runs guests on executors, of which the first is what the others are compared with."""

    def __init__(
        self,
        executors: Sequence[Executor],
        rules: Sequence[Rule],
        instruction: Instruction,
        bits: Mapping[str, Mapping[str, int]],
    ) -> None:
        self.executors = executors
        self.rules = rules
        self.tally = Tally()
        self._instruction = instruction
        self._bits = bits

    def run(self, guest: Guest) -> Finding | None:
        """Run a guest to its end or to the first difference that no rule explains."""
        self.tally.guests += 1
        reference, *others = self.executors
        for executor in self.executors:
            executor.start(guest)
        now = reference.elements()
        pages: set[int] = set()
        for number in range(guest.steps):
            place = _place(guest.mode, now)
            code = reference.read(place, 15)
            text = self._instruction(code, guest.mode, place)
            if code[0] == HLT or text == "hlt":
                self.tally.ends["halt"] += 1
                return None
            before, memory = now, {page: reference.read(page, PAGE) for page in pages}
            step = reference.step(None)
            self.tally.steps += 1
            self.tally.instructions[text.partition(" ")[0]] += 1
            if step.ended.startswith("cannot"):
                ended = self._cannot(reference.name, text, step)
                if ended is None:
                    return Finding(
                        guest, (reference.name,) * 2, number, text, (step.ended,), before, memory
                    )
                self.tally.ends[ended] += 1
                return None
            now = reference.elements()
            pages |= step.pages
            if not 0 <= _place(guest.mode, now) < MEMORY - 16:
                self.tally.ends["outside"] += 1
                return None
            if {place & -PAGE, place + 15 & -PAGE} & step.pages:
                self.tally.ends["wrote to the page that it ran in"] += 1
                return None
            for other in list(others):
                result = self._compare(other, step, now, text)
                if isinstance(result, tuple):
                    pair = (reference.name, other.name)
                    return Finding(guest, pair, number, text, result, before, memory)
                if not result:
                    others.remove(other)
            if step.ended:
                self.tally.ends[step.ended] += 1
                return None
            if len(self.executors) > 1 and not others:
                self.tally.ends["nobody to compare with"] += 1
                return None
        self.tally.ends["all steps"] += 1
        return None

    def _cannot(self, name: str, text: str, step: Step) -> str | None:
        for rule in self.rules:
            event = Event((name,), text, frozenset(), bool(step.accesses))
            if (
                rule.kind == "cannot"
                and name in rule.executors
                and rule.says.search(step.ended)
                and rule.concerns(event)
            ):
                self.tally.used[rule.name] += 1
                return rule.name
        return None

    def _compare(
        self, other: Executor, step: Step, now: Elements, text: str
    ) -> tuple[str, ...] | bool:
        """What differs unexplained, or whether the other can go on."""
        pair = (self.executors[0].name, other.name)
        theirs = other.step(now["rip"])
        if theirs.ended.startswith("cannot"):
            return False if self._cannot(other.name, text, theirs) else (theirs.ended,)
        elements = other.elements()
        if theirs.exception is not None and elements["rip"] != now["rip"]:
            # The handler's first instruction as well: a host that begins to step only there.
            more = other.step(now["rip"])
            theirs.pages |= more.pages
            elements = other.elements()
        vectors = {_vector(now["rip"]), theirs.exception} - {None}
        if "shutdown" in (step.ended, theirs.ended):
            vectors.add(_DOUBLE_FAULT)
        event = Event(
            pair,
            text,
            frozenset(vector for vector in vectors if vector is not None),
            bool(step.accesses or theirs.accesses),
        )
        self.tally.compared[" and ".join(pair)] += 1
        if step.ended or theirs.ended:
            if step.ended != theirs.ended and not self._explained("apart", event):
                return (f"ended: {step.ended!r} -> {theirs.ended!r}",)
            return False
        unexplained: list[str] = []
        adopted: Elements = {}
        for name, value in elements.items():
            if name in now and now[name] != value and not _both_absent(name, now[name], value):
                if self._undefined(event, name, now[name] ^ value):
                    adopted[name] = now[name]
                else:
                    unexplained.append(self._shown(name, now[name], value))
        if not self._same_accesses(event, step, theirs):
            unexplained.append(f"accesses: {step.accesses} -> {theirs.accesses}")
        address, size = theirs.unknown
        if size:
            other.write(address, self.executors[0].read(address, size))
        for page in sorted(step.pages | theirs.pages):
            mine, its = self.executors[0].read(page, PAGE), other.read(page, PAGE)
            if mine != its:
                if self._explained("memory", event, _mask(mine, its)):
                    other.write(page, mine)
                else:
                    unexplained.append(_bytes(page, mine, its))
        if unexplained:
            return False if self._explained("apart", event) else tuple(unexplained)
        if adopted:
            other.adopt(adopted)
        return True

    def _same_accesses(self, event: Event, mine: Step, its: Step) -> bool:
        one, other = _flat(mine), _flat(its)
        if one == other or self._explained("accesses", event):
            return True
        return [a for a in one if a[0] != "read"] == [
            a for a in other if a[0] != "read"
        ] and self._explained("reads", event)

    def _explained(self, kind: str, event: Event, mask: int = 0) -> bool:
        for rule in self.rules:
            if rule.kind == kind and not mask & ~rule.mask and rule.concerns(event):
                self.tally.used[rule.name] += 1
                return True
        return False

    def _undefined(self, event: Event, name: str, bits: int) -> bool:
        for rule in self.rules:
            if (
                rule.elements is not None
                and bits & rule.mask
                and rule.elements.fullmatch(name)
                and rule.concerns(event)
            ):
                self.tally.used[rule.name] += 1
                bits &= ~rule.mask
                if not bits:
                    return True
        return False

    def _shown(self, name: str, mine: int, its: int) -> str:
        """A difference, with the bits that have names."""
        named = [
            f"{'+' if its >> number & 1 else '-'}{bit}"
            for bit, number in self._bits.get(name, {}).items()
            if (mine ^ its) >> number & 1
        ]
        return f"{name}: {mine:#x} -> {its:#x}" + f" ({', '.join(named)})" * bool(named)

    def unused(self) -> list[str]:
        """The rules that explained nothing, of those that concern these executors."""
        names = {executor.name for executor in self.executors}
        return [
            rule.name
            for rule in self.rules
            if rule.name not in self.tally.used and (not rule.executors or rule.executors & names)
        ]


def _place(mode: str, elements: Elements) -> int:
    if mode != "real":
        return elements["rip"]
    return elements["rip"] + elements.get("cs.base", elements["cs.selector"] << 4)


def _both_absent(name: str, mine: int, its: int) -> bool:
    """Whether they are attributes of segments that are not present, which have none to be seen."""
    return name.endswith(".attributes") and not (mine | its) & _PRESENT


def _vector(rip: int) -> int | None:
    """The exception whose handler has begun, or is about to."""
    vector, offset = divmod(rip - HANDLERS, 16)
    return vector if 0 <= vector < GATES and offset <= 1 else None


def _flat(step: Step) -> list[tuple[str, int, int]]:
    """Accesses byte by byte, since executors split them differently."""

    def pieces() -> Iterator[tuple[str, int, int]]:
        for kind, place, size, value in step.accesses:
            if kind in ("in", "out"):
                yield f"{kind} {size}", place, value
            else:
                for index in range(size):
                    yield kind, place + index, value >> 8 * index & 0xFF

    return list(pieces())


def _mask(mine: bytes, its: bytes) -> int:
    """The bits of bytes that differ anywhere."""
    mask = 0
    for one, other in zip(mine, its, strict=True):
        mask |= one ^ other
    return mask


def _bytes(page: int, mine: bytes, its: bytes) -> str:
    places = [index for index in range(PAGE) if mine[index] != its[index]]
    first, last = places[0], places[-1] + 1
    return f"memory at {page + first:#x}: {mine[first:last].hex()} -> {its[first:last].hex()}"


def rules(bits: Mapping[str, Mapping[str, int]]) -> tuple[Rule, ...]:
    """The project's own rules."""
    return read_rules(RULES.read_text(), bits)


def no_instruction(code: bytes, mode: str, place: int) -> str:
    """Where nothing disassembles."""
    return code.hex(" ")
