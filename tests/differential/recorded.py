"""What executors did, written down: compared with others where neither of them can be.

Needs the product alone, as do the executors: nested machines have no disassembler and no unicorn.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from differential.executors import Elements, Executor, Step
from differential.guests import MODES, PAGE, Guest, image_of

_RECORD = "tests/differential/record.py"
STEPS = 40
"""Of one guest at most."""
RECORDED = Path(__file__).with_name("recorded.json.gz")


@dataclass
class RecordedStep:
    """One step: what differs from the one before."""

    instruction: str
    elements: Elements
    memory: dict[int, bytes]
    step: Step


@dataclass
class Recording:
    """A guest, and what an executor made of it."""

    executor: str
    seed: str
    kinds: str
    code: str
    """Of the guest that seed and kinds make, in hexadecimal digits."""
    first: Elements
    steps: list[RecordedStep]

    @property
    def guest(self) -> Guest:
        """The guest, made again. Raises ValueError if the grammar makes another one by now."""
        guest = guest_of(self.seed, self.kinds)
        if guest.code.hex() != self.code:
            raise ValueError(
                f"guest {self.seed} is another one now: python {_RECORD} records it anew"
            )
        return guest


def guest_of(seed: str, kinds: str) -> Guest:
    return replace(Guest.random(seed, kinds=kinds), steps=STEPS)


class Recorder:
    """An executor that stands before another one and writes down what that does."""

    def __init__(self, executor: Executor, instruction: Any) -> None:
        self._executor = executor
        self._instruction = instruction
        self.name = executor.name
        self.recordings: list[Recording] = []

    def begin(self, seed: str, kinds: str) -> Guest:
        """The guest to run next."""
        guest = guest_of(seed, kinds)
        self.recordings.append(Recording(self.name, seed, kinds, guest.code.hex(), {}, []))
        return guest

    def start(self, guest: Guest) -> None:
        self._executor.start(guest)
        self._memory = bytearray(image_of(guest.mode))
        for page, data in guest.pages(bytes(self._memory)).items():
            self._memory[page : page + PAGE] = data
        self._now: Elements = {}
        self._guest = guest
        self._pending: Step | None = None
        self._text = ""

    def step(self, following: int | None) -> Step:
        place = self._now["rip"] + (
            self._now["cs.selector"] << 4 if self._guest.mode == "real" else 0
        )
        self._text = self._instruction(self.read(place, 15), self._guest.mode, place)
        self._pending = step = self._executor.step(following)
        if step.ended:
            self._note({})
        return step

    def _note(self, elements: Elements) -> None:
        assert self._pending is not None
        memory: dict[int, bytes] = {}
        for page in sorted(self._pending.pages):
            data = self._executor.read(page, PAGE)
            memory |= dict(_pieces(page, bytes(self._memory[page : page + PAGE]), data))
            self._memory[page : page + PAGE] = data
        recorded = RecordedStep(self._text, elements, memory, self._pending)
        self.recordings[-1].steps.append(recorded)
        self._pending = None

    def elements(self) -> Elements:
        found = self._executor.elements()
        changed = {name: value for name, value in found.items() if self._now.get(name) != value}
        if not self._now:
            self.recordings[-1].first = changed
        elif self._pending is not None:
            self._note(changed)
        self._now = found
        return found

    def adopt(self, elements: Mapping[str, int]) -> None:
        self._executor.adopt(elements)

    def read(self, address: int, size: int) -> bytes:
        return self._executor.read(address, size)

    def write(self, address: int, data: bytes) -> None:
        self._executor.write(address, data)

    def close(self) -> None:
        self._executor.close()


class Player:
    """An executor that does what is written down, once for each guest and in their order."""

    def __init__(self, recordings: Iterable[Recording]) -> None:
        self._recordings = {one.code: one for one in recordings}
        self.name = next((one.executor for one in self._recordings.values()), "nobody")
        self._images = {mode: image_of(mode) for mode in MODES}

    def start(self, guest: Guest) -> None:
        recording = self._recordings[guest.code.hex()]
        self._memory = bytearray(self._images[guest.mode])
        for page, data in guest.pages(self._images[guest.mode]).items():
            self._memory[page : page + PAGE] = data
        self._elements = dict(recording.first)
        self._steps: Iterator[RecordedStep] = iter(recording.steps)
        self._texts = [step.instruction for step in recording.steps]
        self._count = 0

    def instruction(self, code: bytes, mode: str, place: int) -> str:
        """What is executed next; HLT, where a guest ends, is not written down."""
        return self._texts[self._count] if self._count < len(self._texts) else "hlt"

    def step(self, following: int | None) -> Step:
        recorded = next(self._steps)
        self._count += 1
        self._elements |= recorded.elements
        for address, data in recorded.memory.items():
            self.write(address, data)
        return recorded.step

    def elements(self) -> Elements:
        return dict(self._elements)

    def adopt(self, elements: Mapping[str, int]) -> None:
        self._elements |= elements

    def read(self, address: int, size: int) -> bytes:
        return bytes(self._memory[address : address + size])

    def write(self, address: int, data: bytes) -> None:
        self._memory[address : address + len(data)] = data

    def close(self) -> None:
        pass


def _pieces(page: int, before: bytes, after: bytes) -> Iterator[tuple[int, bytes]]:
    """What changed of a page, 16 bytes at a time."""
    for at in range(0, PAGE, 16):
        if before[at : at + 16] != after[at : at + 16]:
            yield page + at, after[at : at + 16]


def written(recordings: Iterable[Recording]) -> bytes:
    """Recordings as they are kept."""
    text = json.dumps([asdict(one) for one in recordings], default=_plain, sort_keys=True)
    return gzip.compress(text.encode(), mtime=0)


def _plain(value: object) -> object:
    match value:
        case bytes():
            return value.hex()
        case set():
            return sorted(value)
        case Mapping():
            return dict(value)
    raise TypeError(f"{value!r} is not to be written")


def read(data: bytes) -> list[Recording]:
    """What :func:`written` gave."""
    return [
        Recording(**{**one, "steps": [*map(_step, one["steps"])]})
        for one in json.loads(gzip.decompress(data))
    ]


def _memory(given: Mapping[str, str]) -> dict[int, bytes]:
    return {int(address): bytes.fromhex(data) for address, data in given.items()}


def _step(given: Mapping[str, Any]) -> RecordedStep:
    of = given["step"]
    step = Step(
        [(kind, place, size, value) for kind, place, size, value in of["accesses"]],
        set(of["pages"]),
        of["ended"],
        of["exception"],
        (of["unknown"][0], of["unknown"][1]),
    )
    return RecordedStep(given["instruction"], given["elements"], _memory(given["memory"]), step)
