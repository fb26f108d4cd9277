"""What executes guests one instruction at a time, and tells state, accesses and memory written.

Nothing here needs more than the product: nested machines import it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from math import inf
from threading import Event, Thread
from time import monotonic
from typing import Any, Protocol

from vmm_arch.errors import HypervisorError, UnansweredError
from vmm_arch.exits import Halt, Kicked, MmioRead, MmioWrite, Shutdown, SingleStep
from vmm_arch.memory import MemoryAccessError
from vmm_arch.state import SavedState
from vmm_arch.x86_64.exits import IoIn, IoOut

from differential.guests import HLT, MEMORY, MODES, PAGE, TABLES_END, Guest, image_of, start_of

_ROUNDS = 200
"""How many exits of one instruction: more than any guest's REP needs."""
_PATIENCE = 2.0
SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")
_PARTS = {"type": 0, "s": 4, "dpl": 5, "present": 7, "avl": 12, "l": 13, "db": 14, "g": 15}
ATTRIBUTES = {
    f"{segment}.{part}": (f"{segment}.attributes", number)
    for segment in SEGMENTS
    for part, number in _PARTS.items()
}

Elements = dict[str, int]
Access = tuple[str, int, int, int]
"""``in``, ``out``, ``read`` or ``write``; the port or address, its size and the value."""


@dataclass
class Step:
    """What came of one instruction, REP and all, or of an exception."""

    accesses: list[Access] = field(default_factory=list)
    pages: set[int] = field(default_factory=set)
    """The pages that were written."""
    ended: str = ""
    """Why the guest cannot go on: ``halt``, ``shutdown``, ``cannot: …``."""
    exception: int | None = None
    """The vector, if the executor knows."""
    unknown: tuple[int, int] = (0, 0)
    """The address and size of what was written and the executor cannot know."""


class Executor(Protocol):
    """An executor, which has one guest at a time."""

    name: str

    def start(self, guest: Guest) -> None: ...
    def step(self, following: int | None) -> Step:
        """Execute an instruction. ``following`` is where another executor got by it."""

    def elements(self) -> Elements: ...
    def adopt(self, elements: Mapping[str, int]) -> None:
        """Take over what another executor has."""

    def read(self, address: int, size: int) -> bytes: ...
    def write(self, address: int, data: bytes) -> None: ...
    def close(self) -> None: ...


def answer(port: int, size: int) -> int:
    """What a port holds."""
    return (port * 0x0101_0101 + 0x89AB_CDEF) & (1 << 8 * size) - 1


def device_answer(address: int, size: int) -> int:
    """What an address without memory holds: the same bytes however many are read at once."""
    return int.from_bytes(
        bytes((at * 7 + 3) & 0xFF for at in range(address, address + size)), "little"
    )


def neutral(name: str, value: int, found: Elements) -> None:
    """Note an element of any backend; segments' attributes are one word."""
    if name in ATTRIBUTES:
        word, number = ATTRIBUTES[name]
        width = 4 if name.endswith(".type") else 2 if name.endswith(".dpl") else 1
        found[word] = found.get(word, 0) & ~((1 << width) - 1 << number) | value << number
    elif name.endswith(".Attributes"):
        found[name.lower()] = value
    else:
        found[name] = value


def specific(elements: Mapping[str, int], known: Iterable[str]) -> Elements:
    """The other way round: for a backend that has these names."""
    names = set(known)
    found: Elements = {}
    for name, value in elements.items():
        segment, _, part = name.partition(".")
        if part != "attributes":
            if name in names:
                found[name] = value
        elif f"{segment}.Attributes" in names:
            found[f"{segment}.Attributes"] = value
        else:
            for piece, number in _PARTS.items():
                found[f"{segment}.{piece}"] = value >> number & (15 if piece == "type" else 1)
            found[f"{segment}.dpl"] = value >> 5 & 3
    return found


_PREFIXES = frozenset(bytes.fromhex("26 2e 36 3e 64 65 66 67 f0 f2 f3"))
_STRINGS = frozenset(bytes.fromhex("6c 6d 6e 6f a4 a5 a6 a7 aa ab ac ad ae af"))


def prefixes(code: bytes, mode: str) -> bytes:
    """The legacy prefixes of an instruction, and REX."""
    for count, byte in enumerate(code):
        if byte not in _PREFIXES and (mode != "long" or byte & 0xF0 != 0x40):
            return code[:count]
    return code


def is_repeated(code: bytes, mode: str) -> bool:
    """Whether an instruction is a string's with REP."""
    before = prefixes(code, mode)
    opcode = code[len(before) : len(before) + 1]
    return bool(opcode) and opcode[0] in _STRINGS and (0xF2 in before or 0xF3 in before)


class BackendExecutor:
    """A backend's vCPU, single-stepped."""

    def __init__(self, name: str, arch: Any) -> None:
        self.name = name
        self._arch = arch
        self._stack = ExitStack()
        self._memory = self._stack.enter_context(arch.GuestMemory(MEMORY))
        self._vm = self._stack.enter_context(arch.Vm(self._memory, track_dirty=True))
        self._vcpu = self._vm.vcpus[0]
        self._images = {mode: image_of(mode) for mode in MODES}
        self._starts: dict[str, SavedState] = {}
        self._first_elements: dict[str, Elements] = {}
        self._mode = MODES[0]
        self._memory.write(0, self._images[self._mode])
        self._written: set[int] = set()
        self._saved: SavedState
        self._elements: Elements = {}
        self._last = 0
        self._step_is_due = False
        """Whether the last instruction's step is still to be told, since an access came first."""

    def close(self) -> None:
        self._stack.close()

    def _first_state(self, guest: Guest) -> SavedState:
        """What every guest of the mode begins with, on a vCPU that is ready for it."""
        if guest.mode not in self._starts:
            vcpu = self._vcpu
            (self._arch.reset_vcpu if self._starts else self._arch.configure_vcpu)(
                vcpu, guest.entry
            )
            state: SavedState = vcpu.save()
            state = state.replace(specific(start_of(guest.mode), state.elements))
            self._starts[guest.mode] = state
            found: Elements = {}
            for name, value in state.elements.items():
                if not name.startswith("cpuid"):
                    neutral(name, value, found)
            self._first_elements[guest.mode] = found
            self._prepare()
        return self._starts[guest.mode]

    def _prepare(self) -> None:
        self._vcpu.step(True)

    def start(self, guest: Guest) -> None:
        first = self._first_state(guest)
        for page, data in self._pages(guest).items():
            self._memory.write(page, data)
        self._vcpu.restore(first.replace(specific(guest.registers, first.elements)))
        self._vm.dirty_pages()
        self._step_is_due = False
        self._saved, self._elements = first, self._first_elements[guest.mode]

    def _pages(self, guest: Guest) -> dict[int, bytes]:
        """What to write to memory, which is as the last guest has left it."""
        image, written = self._images[guest.mode], self._written
        if guest.mode != self._mode:
            written.update(range(0, TABLES_END, PAGE))
            self._mode = guest.mode
        pages = guest.pages(image)
        old = {page: image[page : page + PAGE] for page in written if page not in pages}
        written.clear()
        written.update(pages)
        return old | pages

    def step(self, following: int | None) -> Step:
        step = Step()
        vcpu = self._vcpu
        before = self._position()
        repeats = self._repeats(before)
        try:
            for count in range(_ROUNDS):
                stepped = self._went_on(vcpu.run(), step)
                if step.ended or self._position() != before:
                    break
                if stepped and not repeats and (count or not self._step_is_due):
                    break  # a jump to itself
            else:
                step.ended = "cannot: no end"
        except (UnansweredError, HypervisorError) as error:
            step.ended = f"cannot: {error}"
        self._step_is_due = bool(step.accesses)
        self._note_pages(step)
        return step

    def _went_on(self, exit: Any, step: Step) -> bool:
        """Note an exit; tell whether an instruction may be over."""
        match exit:
            case SingleStep():
                return True
            case IoOut(port=port):
                for at in range(0, len(exit.data), exit.size):
                    value = int.from_bytes(exit.data[at : at + exit.size], "little")
                    step.accesses.append(("out", port, exit.size, value))
                return False
            case IoIn(port=port, size=size):
                value = answer(port, size)
                exit.complete(value)
                step.accesses += [("in", port, size, value)] * exit.count
                return False
            case MmioWrite(address=address, data=data):
                step.accesses.append(("write", address, len(data), exit.value))
                return False
            case MmioRead(address=address, size=size):
                value = device_answer(address, size)
                exit.complete(value)
                step.accesses.append(("read", address, size, value))
                return False
            case Halt():
                return self._halted(step)
            case Shutdown():
                step.ended = "shutdown"
            case Kicked():
                step.ended = "cannot: no end"
            case _:
                step.ended = f"cannot: {exit!r}"
        return True

    def _halted(self, step: Step) -> bool:
        """No instruction that is stepped is HLT: some hosts tell of one before an exception."""
        return False

    def _note_pages(self, step: Step) -> None:
        step.pages = {page for page in self._vm.dirty_pages() if page < MEMORY}
        self._written |= step.pages

    def _position(self) -> int:
        """RIP; as it was while the instruction has more accesses to make."""
        with suppress(UnansweredError):
            self._last = int(self._vcpu.get_regs().rip)
        return self._last

    def _repeats(self, position: int) -> bool:
        """Whether the next instruction is a string's that is repeated."""
        try:
            code = self.read(self._linear(position), 8)
        except MemoryAccessError:
            return False
        return is_repeated(code, self._mode)

    def _linear(self, position: int) -> int:
        if self._mode == "real":
            return position + int(self._vcpu.get_sregs().cs.base)
        return position

    def elements(self) -> Elements:
        """All elements. What differs from the last state is found by the states' own comparison."""
        state: SavedState = self._vcpu.save()
        found = dict(self._elements)
        for difference in self._saved.diff(state):
            if difference.theirs is not None:
                neutral(difference.name, difference.theirs, found)
        self._saved, self._elements = state, found
        return found

    def adopt(self, elements: Mapping[str, int]) -> None:
        state: SavedState = self._vcpu.save()
        self._vcpu.restore(state.replace(specific(elements, state.elements)))

    def read(self, address: int, size: int) -> bytes:
        data: bytes = self._memory.read(address, size)
        return data

    def write(self, address: int, data: bytes) -> None:
        self._memory.write(address, data)
        last = address + len(data) - 1
        self._written.update((address & -PAGE, last & -PAGE))


class PlantingExecutor(BackendExecutor):
    """A backend without single steps: HLT is planted where another executor got."""

    def __init__(self, name: str, arch: Any) -> None:
        super().__init__(name, arch)
        self._since = inf
        self._over = Event()
        watch = Thread(target=self._watch, daemon=True)
        watch.start()
        self._stack.callback(watch.join)
        self._stack.callback(self._over.set)

    def _watch(self) -> None:
        """Kick a guest that runs without end: it came somewhere else than the other one."""
        while not self._over.wait(1):
            if monotonic() - self._since > _PATIENCE:
                self._vcpu.kick()

    def _prepare(self) -> None:
        pass

    def _halted(self, step: Step) -> bool:
        step.ended = "halt"
        return True

    def step(self, following: int | None) -> Step:
        step = Step()
        vcpu = self._vcpu
        before = self._position()
        if following is None or following == before:
            step.ended = "cannot: no other place to stop at"
            return step
        place = self._linear(following)
        try:
            original = self.read(place, 1)
            self.write(place, bytes([HLT]))
        except MemoryAccessError:
            step.ended = "cannot: nowhere to stop at"
            return step
        self._since = monotonic()
        try:
            while not self._went_on(vcpu.run(), step):
                pass
        except (UnansweredError, HypervisorError) as error:
            step.ended = f"cannot: {error}"
        self._since = inf
        if step.ended == "halt":
            regs = vcpu.get_regs()
            if regs.rip == following + 1:
                regs.rip = following
                vcpu.set_regs(regs)
                step.ended = ""
        if self.read(place, 1) == bytes([HLT]):
            self.write(place, original)
        self._note_pages(step)
        return step

    def elements(self) -> Elements:
        """What the records have: the whole state takes a hundred times as long."""
        vcpu = self._vcpu
        regs, sregs, fpu = vcpu.get_regs(), vcpu.get_sregs(), vcpu.get_fpu()
        found = {name: int(getattr(regs, name)) for name in REGISTERS}
        for name in ("cr0", "cr2", "cr3", "cr4", "cr8", "efer", "apic_base"):
            found[name] = int(getattr(sregs, name))
        for name in ("gdt", "idt"):
            table = getattr(sregs, name)
            found |= {f"{name}.base": int(table.base), f"{name}.limit": int(table.limit)}
        for name in SEGMENTS:
            segment = getattr(sregs, name)
            found |= {
                f"{name}.selector": int(segment.selector),
                f"{name}.base": int(segment.base),
                f"{name}.limit": int(segment.limit),
                f"{name}.attributes": sum(
                    int(getattr(segment, part)) << number for part, number in _PARTS.items()
                ),
            }
        found |= {"fcw": int(fpu.fcw), "fsw": int(fpu.fsw), "mxcsr": int(fpu.mxcsr)}
        return found


REGISTERS = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp"),
    *(f"r{number}" for number in range(8, 16)),
    *("rip", "rflags"),
)
