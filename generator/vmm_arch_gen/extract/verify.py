"""Proof by a compiler: every fact of an :class:`Abi` against what a C compiler makes of the headers.

One C file includes the target's real headers, without any shim, and defines one constant object.
The object holds, for every fact, what the compiler says in its place: sizes, offsets, types, values,
and for each bit-field a record in which that field alone is all ones; of macros with arguments the values
of many calls. The object's bytes are read back from the object file and compared. Compiling it checks
the headers' own static assertions.

C has no constant expression that tells a bit-field's signedness: that is as its declaration says.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from vmm_arch_gen.abi.layout import LayoutError, Layouts
from vmm_arch_gen.abi.members import Place, members
from vmm_arch_gen.abi.model import Abi, Record, String, VerifiedAbi
from vmm_arch_gen.abi.types import SCALARS, Array, Named, Scalar, Type, declare, spell
from vmm_arch_gen.diagnostics import InputError, Problem
from vmm_arch_gen.extract import verify_macros
from vmm_arch_gen.extract.toolchain import Toolchain
from vmm_arch_gen.extract.verify_macros import Calls
from vmm_arch_gen.targets import Target

_BEGIN = bytes.fromhex("f3a91c5e70d2486bb5e80f3d9a61c724")
_END = bytes.fromhex("2d8ec47a95b1063f4c7de21f88a0593b")
_MASK = (1 << 64) - 1

# Which of C's own types an expression has, as a number that stands for its name in _TYPES.
_TYPES = ("another type", *(name for name in SCALARS if name != "void"))
_TYPE_MACRO = (
    "#define VMM_ARCH_TYPE(x) _Generic((x), "
    + "".join(f"{name}: {number}, " for number, name in enumerate(_TYPES) if number)
    + "default: 0)\n"
)
_SIGNEDNESS = ("unsigned", "signed")
_AGREEMENT = ("something else", "that")


@dataclass(frozen=True)
class _Fact:
    """Something that is claimed, and the C expression by which the compiler states its own view."""

    subject: str
    """What it is about, as C names it."""
    property: str
    claimed: int
    expression: str
    header: str
    words: tuple[str, ...] = ()
    """What the values mean, where they are no numbers."""

    def show(self, value: int) -> str:
        if 0 <= value < len(self.words):
            return self.words[value]
        return str(value) if -4096 < value < 4096 else hex(value)


@dataclass(frozen=True)
class _Bits:
    """The claim that a bit-field occupies certain bits of a record that C can name."""

    subject: str
    record: str
    designator: str
    offset: int
    """In bits, from the start of the record."""
    width: int
    header: str


def verify(abi: Abi, target: Target, toolchain: Toolchain) -> VerifiedAbi:
    """Have the compiler state every fact itself; InputError names each one that differs.

    Each problem gives both values: the one read from the headers and the compiler's.
    """
    facts = [*_facts(abi), *(of_records := list(_record_facts(abi)))]
    bits = list(_bit_fields(abi))
    calls = verify_macros.calls(abi)
    functions = verify_macros.functions(calls)
    start = len(facts) - len(of_records)
    source = _source(target, facts, start, bits, calls, _hidden(abi)) + functions
    optimised = ("-O1",) if functions else ()
    try:
        compiled = toolchain.compile(source, options=(*optimised, *target.proof))
    except InputError as error:
        raise InputError(*(_explain(p, facts, bits, calls) for p in error.problems)) from None
    begin, end = compiled.find(_BEGIN), compiled.find(_END)
    if begin < 0 or end < 0:
        raise InputError(
            Problem(
                toolchain.command[0],
                "the proof is missing from the object file that this compiler made",
                "name another compiler with --cc CMD",
            )
        )
    proof = compiled[begin + len(_BEGIN) : end]
    order = "<" if proof[0] == 1 else ">"
    numbers = struct.unpack_from(f"{order}{_count(facts, bits, calls)}Q", proof)
    problems = [
        _disagreement(f.header, f"{f.property} of {f.subject}", f.show(f.claimed), f.show(stated))
        for f, stated in zip(facts, numbers[1:], strict=False)
        if f.claimed & _MASK != stated
    ]
    if (byte_order := "little" if order == "<" else "big") != abi.model.byte_order:
        what = "byte order of the target"
        problems.append(_disagreement(abi.target, what, abi.model.byte_order, byte_order))
    places = numbers[1 + len(facts) :][: 2 * len(bits)]
    for claim, start, size in zip(bits, places[::2], places[1::2], strict=True):
        at = start - len(_BEGIN)
        stated_bits = _ones(proof[at : at + size], byte_order)
        claimed_bits = list(range(claim.offset, claim.offset + claim.width))
        if stated_bits != claimed_bits:
            what = f"bits of {claim.subject}"
            problems.append(
                _disagreement(claim.header, what, _run(claimed_bits), _run(stated_bits))
            )
    of_macros = numbers[1 + len(facts) + 2 * len(bits) :]
    problems += [
        _disagreement(called.header, *difference)
        for called, values in verify_macros.stated(calls, compiled, of_macros, order)
        for difference in called.differences(values)
    ]
    if problems:
        raise InputError(*problems)
    return VerifiedAbi(abi)


def _count(facts: list[_Fact], bits: list[_Bits], calls: list[Calls]) -> int:
    """How many numbers the constant object has."""
    constant = (len(called.claimed) for called in calls if not called.macro.statements)
    return 1 + len(facts) + 2 * len(bits) + sum(constant)


def _disagreement(header: str, what: str, claimed: str, stated: str) -> Problem:
    return Problem(
        header,
        f"the {what} is {claimed} as read from the header, but {stated} for the compiler",
        "nothing was written; this is an error of vmm-arch-gen or of the target's table: report it",
    )


def _run(bits: list[int]) -> str:
    if not bits:
        return "none"
    if bits == list(range(bits[0], bits[-1] + 1)):
        return f"{bits[0]} to {bits[-1]}"
    return ", ".join(map(str, bits))


def _ones(data: bytes, byte_order: str) -> list[int]:
    """The positions of the bits that are set, counted as the target allocates bit-fields."""
    found = []
    for at, byte in enumerate(data):
        if byte:
            for bit in range(8):
                if byte >> (bit if byte_order == "little" else 7 - bit) & 1:
                    found.append(at * 8 + bit)
    return found


def _explain(
    problem: Problem, facts: list[_Fact], bits: list[_Bits], calls: list[Calls]
) -> Problem:
    """Name the fact that a line of the proof is about, where the compiler rejects the line."""
    match = re.fullmatch(rf"(facts|bits|{verify_macros.LINES}):(\d+)", problem.where)
    if match is None:
        return problem
    number = int(match[2]) - 1
    if match[1] == "facts":
        fact = facts[number]
        header, what = fact.header, f"{fact.property} of {fact.subject}"
    elif match[1] == verify_macros.LINES:
        header, what = calls[number].header, f"calls of {calls[number].macro.name}"
    else:
        claim = bits[number]
        header, what = claim.header, f"bits of {claim.subject}"
    return Problem(header, f"the {what}: {problem.what}", problem.remedy)


def _hidden(abi: Abi) -> list[str]:
    """The macros that have the names of members, which the proof cannot name beside them."""
    members = {member.name for record in abi.records.values() for member in record.members}
    macros = {constant.name for constant in abi.constants}
    macros |= {string.name for string in abi.strings} | {ioctl.name for ioctl in abi.ioctls}
    macros |= {omission.name for omission in abi.omissions if omission.kind == "macro"}
    return sorted(members & macros)


def _source(
    target: Target,
    facts: list[_Fact],
    start: int,
    bits: list[_Bits],
    calls: list[Calls],
    hidden: list[str],
) -> str:
    """The proof in C. Every fact has one line, which ``#line`` numbers as the lists do.

    ``start`` is the first fact that names members; ``hidden`` are no macros where members are named.
    """
    hide = "".join(f'#pragma push_macro("{name}")\n#undef {name}\n' for name in hidden)
    show = "".join(f'#pragma pop_macro("{name}")\n' for name in hidden)
    includes = "".join(f"#include <{header}>\n" for header in target.headers)
    begin, end = (", ".join(map(str, mark)) for mark in (_BEGIN, _END))
    count = _count(facts, bits, calls)
    holders = "".join(
        f"__typeof__({claim.record}) bits_{number};\n" for number, claim in enumerate(bits)
    )
    lines = [f"(unsigned long long)({fact.expression}),\n" for fact in facts]
    values = "".join((*lines[:start], hide, f'#line {start + 1} "facts"\n', *lines[start:], show))
    places = "".join(
        f"__builtin_offsetof(struct vmm_arch_proof, bits_{number}),"
        f" sizeof(((struct vmm_arch_proof *)0)->bits_{number}),\n"
        for number in range(len(bits))
    )
    ones = "".join(
        f".bits_{number} = {{ .{claim.designator} = -1 }},\n" for number, claim in enumerate(bits)
    )
    return (
        f'{includes}#line 1 "proof"\n{_TYPE_MACRO}{verify_macros.PREAMBLE}'
        f"#ifndef {target.cpu_macro}\n"
        f"#error this compiler does not compile for {target.name} ({target.cpu_macro} is not set)\n"
        "#endif\n"
        "struct vmm_arch_proof {\n"
        "unsigned char begin[16];\n"
        f"unsigned long long numbers[{count}];\n"
        f'#line 1 "bits"\n{holders}#line 1 "proof"\n'
        "unsigned char end[16];\n"
        "};\n"
        "const struct vmm_arch_proof vmm_arch_proof = {\n"
        f".begin = {{ {begin} }}, .numbers = {{ 1,\n"
        f'#line 1 "facts"\n{values}#line 1 "bits"\n{places}'
        f'{"".join(verify_macros.constants(calls))}}},\n'
        f'{hide}#line 1 "bits"\n{ones}{show}#line 1 "proof"\n'
        f".end = {{ {end} }}\n}};\n"
    )


def _facts(abi: Abi) -> Iterator[_Fact]:
    layouts = Layouts.of_abi(abi)
    model = abi.model
    yield _Fact("long", "size", model.long, "sizeof(long)", abi.target)
    yield _Fact("long double", "size", model.long_double, "sizeof(long double)", abi.target)
    yield _Fact("void *", "size", model.pointer, "sizeof(void *)", abi.target)
    if model.pointer == 8:  # there is none where it would take four registers
        claimed = model.int128_align
        yield _Fact("__int128", "alignment", claimed, "_Alignof(__int128)", abi.target)
    sign = int(model.signed_char)
    yield _Fact("char", "signedness", sign, "(char)-1 < 0", abi.target, _SIGNEDNESS)
    for constant in abi.constants:
        yield from _value(constant.name, constant.value, constant.header)
    for string in abi.strings:
        yield from _text(string)
    for enum in abi.enums.values():
        for name, value in enum.enumerators:
            yield from _value(name, value, enum.header)
        if "<" not in enum.key:
            yield from _measures(enum.key, Named(enum.key), layouts, enum.header)
            yield _scalar(enum.key, enum.underlying, f"*({enum.key} *)0", enum.header)
    for ioctl in abi.ioctls:
        yield from _value(ioctl.name, ioctl.value, ioctl.header)
    for typedef in abi.typedefs.values():
        name, header = typedef.name, typedef.header
        yield from _measures(name, Named(name), layouts, header)
        match typedef.type:
            case Scalar(scalar) if scalar != "void":
                yield _scalar(name, typedef.type, f"*({name} *)0", header)
            case aliased:
                yield _agreement(name, aliased, name, header)
    for function in abi.functions:
        yield _agreement(function.name, function.type, function.name, function.header)


def _record_facts(abi: Abi) -> Iterator[_Fact]:
    layouts = Layouts.of_abi(abi)
    for record in abi.records.values():
        if not record.unnamed:
            layout = layouts.record(record.key)
            yield _Fact(record.key, "size", layout.size, f"sizeof({record.key})", record.header)
            align = f"_Alignof({record.key})"
            yield _Fact(record.key, "alignment", layout.align, align, record.header)
            for place in members(record, abi.records, layouts):
                if place.member.bits is None:
                    yield from _member(record, place, abi, layouts)


def _value(name: str, value: int, header: str) -> Iterator[_Fact]:
    yield _Fact(name, "value", value, name, header)
    if not 0 <= value < 1 << 63:  # where 64 bits alone leave it open
        yield _Fact(name, "sign", int(value < 0), f"({name}) < 0", header, ("plus", "minus"))


def _text(string: String) -> Iterator[_Fact]:
    name, header = string.name, string.header
    type = Array(Scalar("char"), len(string.value) + 1)
    yield _agreement(name, type, name, header)
    for at, char in enumerate(string.value):
        yield _Fact(name, f"char {at}", char, f"(unsigned char)({name})[{at}]", header)


def _measures(subject: str, type: Named, layouts: Layouts, header: str) -> Iterator[_Fact]:
    try:
        size, align = layouts.of(type)
    except LayoutError:
        return  # void, a function or an incomplete record: nothing to measure
    yield _Fact(subject, "size", size, f"sizeof({subject})", header)
    yield _Fact(subject, "alignment", align, f"_Alignof({subject})", header)


def _scalar(subject: str, type: Scalar, expression: str, header: str) -> _Fact:
    """That an expression has one of C's own types."""
    stated = f"VMM_ARCH_TYPE({expression})"
    return _Fact(subject, "type", _TYPES.index(type.name), stated, header, _TYPES)


def _agreement(subject: str, type: Type, stated: str, header: str) -> _Fact:
    """That an expression or a type has a type, whatever its own qualifiers are."""
    same = f"__builtin_types_compatible_p(__typeof__({stated}), {declare(type)})"
    return _Fact(subject, f"type {spell(type)}", 1, same, header, _AGREEMENT)


def _member(record: Record, place: Place, abi: Abi, layouts: Layouts) -> Iterator[_Fact]:
    path, type = place.path, place.member.type
    name, header = f"{record.key}.{path}", record.header
    member = f"(({record.key} *)0)->{path}"
    offset = f"__builtin_offsetof({record.key}, {path})"
    yield _Fact(name, "offset", place.offset // 8, offset, header)
    flexible = False
    while isinstance(resolved := layouts.resolve(type), Array):
        flexible = flexible or resolved.count is None
        if not flexible:
            yield _Fact(name, "size", layouts.of(type)[0], f"sizeof({member})", header)
        type, member = resolved.of, f"{member}[0]"
    size, align = layouts.of(type)
    what = "element size" if "[0]" in member else "size"
    yield _Fact(name, what, size, f"sizeof({member})", header)
    match resolved:
        case Scalar():
            yield _scalar(name, resolved, member, header)
        case Named(key) if abi.records[key].unnamed:
            align_of = f"_Alignof(__typeof__({member}))"
            yield _Fact(name, "alignment", align, align_of, header)
        case _:
            yield _agreement(name, type, member, header)


def _bit_fields(abi: Abi) -> Iterator[_Bits]:
    layouts = Layouts.of_abi(abi)
    for record in abi.records.values():
        if not record.unnamed:
            for place in members(record, abi.records, layouts):
                if place.member.bits is not None:
                    name = f"{record.key}.{place.path}"
                    width = place.member.bits
                    yield _Bits(name, record.key, place.path, place.offset, width, record.header)
