"""Makes a guest small that shows a difference: one instruction if it can be, and little else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from differential.compare import Finding
from differential.disassembly import listing
from differential.executors import REGISTERS
from differential.guests import CODE, PAGE, Guest

Shows = Callable[[Guest], Finding | None]
"""Runs a guest, and gives what differs."""
_NOP = 0x90
_LONGEST = 15
_LIMIT = 400
"""How many guests are tried."""


def shrink(finding: Finding, shows: Shows) -> Finding:
    """A guest as small as can be whose executors differ in the same instruction."""
    return _Shrinking(finding, shows).run()


class _Shrinking:
    def __init__(self, finding: Finding, shows: Shows) -> None:
        self._best = finding
        self._shows = shows
        self._left = _LIMIT

    def run(self) -> Finding:
        self._try(replace(self._best.guest, steps=self._best.step + 1))
        self._try(self._only_the_last())
        self._without_instructions()
        self._without_registers()
        self._without_memory()
        return self._best

    def _try(self, guest: Guest) -> bool:
        if self._left <= 0:
            return False
        self._left -= 1
        found = self._shows(guest)
        if found is None or found.instruction.split()[0] != self._best.instruction.split()[0]:
            return False
        self._best = found
        return True

    def _only_the_last(self) -> Guest:
        """The guest as it was before the instruction, as far as registers and memory say."""
        found = self._best
        before = found.before
        names = (*REGISTERS, *(f"xmm{number}" for number in range(16)), "mxcsr", "fcw", "fsw")
        registers = {name: before[name] for name in names if name in before}
        memory = {**found.guest.memory, **found.memory}
        return replace(found.guest, registers=registers, memory=memory, steps=1)

    def _without_instructions(self) -> None:
        """Put NOPs in place of instructions, so that all others stay where they are."""
        code = self._best.guest.code
        for size in (16, 8, 4, 2, 1):
            for start in range(0, len(code), size):
                guest = self._best.guest
                piece = guest.code[start : start + size]
                if piece.strip(bytes([_NOP])):
                    made = guest.code[:start] + bytes([_NOP]) * len(piece)
                    self._try(replace(guest, code=made + guest.code[start + size :]))
        rip = self._best.before["rip"]
        offset = rip - CODE
        guest = self._best.guest
        if guest.steps == 1 and 0 < offset < len(guest.code):
            code = guest.code[offset : offset + _LONGEST]
            registers = {**guest.registers, "rip": CODE}
            self._try(replace(guest, code=code, registers=registers))
        while self._try(replace(self._best.guest, code=self._best.guest.code[:-1])):
            pass

    def _without_registers(self) -> None:
        for name in list(self._best.guest.registers):
            self._try(self._best.guest.without(name))

    def _without_memory(self) -> None:
        for address in list(self._best.guest.memory):
            self._halve(address)

    def _halve(self, address: int) -> None:
        """Leave out what is not needed of a piece of memory."""
        memory = dict(self._best.guest.memory)
        data = memory.pop(address)
        if self._try(replace(self._best.guest, memory=memory)) or len(data) < 2:
            return
        half = len(data) // 2
        pieces = {address: data[:half], address + half: data[half:]}
        if self._try(replace(self._best.guest, memory=memory | pieces)):
            for piece in pieces:
                if piece in self._best.guest.memory:
                    self._halve(piece)


def ready_to_paste(finding: Finding) -> str:
    """A finding as a test, with what its guest executes."""
    guest = finding.guest
    start = guest.registers.get("rip", CODE)
    lines = [
        f"# {finding.executors[0]} and {finding.executors[1]}: {finding.instruction}",
        *(f"#   {difference}" for difference in finding.differences),
        "# The guest:",
        *(f"#   {line}" for line in _code(guest, start)),
        "def test_found() -> None:",
        "    guest = (",
        *(f"        {line}" for line in str(guest).splitlines()),
        "    )",
        f"    assert_alike(guest, {', '.join(map(repr, dict.fromkeys(finding.executors)))})",
    ]
    return "\n".join(lines)


def _code(guest: Guest, start: int) -> Iterable[str]:
    for address, data in guest.memory.items():
        if address <= start < address + len(data):
            return listing(data[start - address :][:PAGE], guest.mode, start)
    return listing(guest.code[start - CODE :], guest.mode, start)
