"""Proof of macros with arguments: the compiler's value of many calls of each, against ours.

The calls of a macro are elements of the constant object of the proof. One whose body has statements
cannot be used there: it is called in functions, where a compiler that optimises turns each call into a
number, and those numbers are written into the object file as the operands of assembler directives.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from vmm_arch_gen.abi.integers import IntType
from vmm_arch_gen.abi.layout import Layouts
from vmm_arch_gen.abi.model import Abi, MacroFunction
from vmm_arch_gen.abi.samples import Sample, Sampler

_MARK = bytes.fromhex("7b0f6ad94c12e58830d6c1f29e4ba753")
"""What values that are operands follow in the object file, after the number of their group."""
_GROUP = 15
"""Values in one assembler directive: each takes two operands, of which gcc allows thirty."""
_MASK = (1 << 64) - 1
LINES = "macros"
"""What the compiler calls the lines of the proof: one for each macro."""

PREAMBLE = """\
#ifndef offsetof
#define offsetof(type, member) __builtin_offsetof(type, member)
#endif
"""


@dataclass(frozen=True)
class Calls:
    """The calls of one macro, and what is claimed of them."""

    macro: MacroFunction
    samples: Sequence[Sample]

    @property
    def header(self) -> str:
        return self.macro.header

    def text(self, sample: Sample) -> str:
        return f"{self.macro.name}({', '.join(sample.texts)})"

    @property
    def _wide(self) -> bool:
        return self.macro.value.type.size > 8

    @cached_property
    def claimed(self) -> list[int]:
        """64 bits each: the type, and the value of each sample, the lower half of a wide one first."""
        type = self.macro.value.type
        found = [_type_number(type)]
        for sample in self.samples:
            found.append(sample.result & _MASK)
            if self._wide:
                found.append(sample.result >> 64 & _MASK)
        return found

    @cached_property
    def expressions(self) -> list[str]:
        """What the compiler states in the place of each claim."""
        call = self.text(self.samples[0])
        found = [f"sizeof(+({call})) * 2 + ((__typeof__(+({call})))-1 < 0)"]
        for sample in self.samples:
            found.append(f"(unsigned long long)({self.text(sample)})")
            if self._wide:
                found.append(f"(unsigned long long)({self.text(sample)} >> 64)")
        return found

    def differences(self, stated: Sequence[int]) -> Iterator[tuple[str, str, str]]:
        """What the compiler contradicts, with the claim and its own view: the first such value."""
        type = self.macro.value.type
        if stated[0] != self.claimed[0]:
            own = IntType(stated[0] // 2, stated[0] % 2 == 1)
            yield f"type of {self.macro.name}'s value", type.name, own.name
            return
        step = 1 + self._wide
        ours, theirs = self.claimed[1:], list(stated[1:])
        for at, sample in enumerate(self.samples):
            if ours[at * step :][:step] != theirs[at * step :][:step]:
                value = sum(half << 64 * n for n, half in enumerate(theirs[at * step :][:step]))
                yield f"value of {self.text(sample)}", hex(sample.result), hex(type.wrap(value))
                return


def _type_number(type: IntType) -> int:
    return type.size * 2 + type.signed


def calls(abi: Abi) -> list[Calls]:
    """The calls that prove a target's macros with arguments."""
    sampler = Sampler(Layouts.of_abi(abi))
    return [Calls(macro, sampler.samples(macro)[0]) for macro in abi.macros]


def constants(proven: Sequence[Calls]) -> Iterator[str]:
    """The calls that C takes as constants: expressions for the constant object, a line a macro."""
    for number, called in enumerate(proven, start=1):
        if not called.macro.statements:
            yield f'#line {number} "{LINES}"\n{", ".join(called.expressions)},\n'


def functions(proven: Sequence[Calls]) -> str:
    """C functions with all other calls."""
    mark = ", ".join(map(str, _MARK))
    texts = []
    for number, (line, group) in enumerate(_groups(proven)):
        values = "".join(
            f"unsigned long long v{at} = {expression}; " for at, expression in enumerate(group)
        )
        words = [word for at in range(len(group)) for word in (f"v{at}", f"(v{at} >> 32)")]
        operands = ", ".join(f'"i"((unsigned){word})' for word in words)
        places = ", ".join(f"%c{at}" for at in range(len(words)))
        texts.append(
            f'#line {line} "{LINES}"\nvoid vmm_arch_calls_{number}(void) {{ {values}'
            f' __asm__ __volatile__(".byte {mark}\\n.4byte {number}, {places}" : : {operands}); }}\n'
        )
    return "".join(texts)


def _groups(proven: Sequence[Calls]) -> Iterator[tuple[int, list[str]]]:
    """The calls in functions, with the line of their macro."""
    for line, called in enumerate(proven, start=1):
        if called.macro.statements:
            for at in range(0, len(called.expressions), _GROUP):
                yield line, called.expressions[at : at + _GROUP]


def stated(
    proven: Sequence[Calls], compiled: bytes, numbers: Sequence[int], order: str
) -> Iterator[tuple[Calls, Sequence[int]]]:
    """What the compiler says of each macro: from the constant object's numbers, or from functions."""
    groups: dict[int, tuple[int, ...]] = {}
    for match in re.finditer(re.escape(_MARK), compiled):
        (number,) = struct.unpack_from(f"{order}I", compiled, match.end())
        groups[number] = struct.unpack_from(
            f"{order}{2 * _GROUP}I", compiled.ljust(match.end() + 4 + 8 * _GROUP), match.end() + 4
        )
    at = group = 0
    for called in proven:
        count = len(called.claimed)
        if not called.macro.statements:
            yield called, numbers[at : at + count]
            at += count
            continue
        found: list[int] = []
        while len(found) < count:
            words = groups[group][: 2 * min(_GROUP, count - len(found))]
            found += [low | high << 32 for low, high in zip(words[::2], words[1::2], strict=True)]
            group += 1
        yield called, found
