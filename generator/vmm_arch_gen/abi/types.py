"""C types, how the facts files spell them, and how C declares them.

The facts files write a type from left to right: ``__u8[4]`` is an array of four ``__u8``,
``void const*`` a pointer to constant memory, ``int(void* context)*`` a pointer to a function.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

SCALARS = (
    "void",
    "_Bool",
    "char",
    "signed char",
    "unsigned char",
    "short",
    "unsigned short",
    "int",
    "unsigned int",
    "long",
    "unsigned long",
    "long long",
    "unsigned long long",
    "__int128",
    "unsigned __int128",
    "float",
    "double",
    "long double",
)

NOT_INTEGERS = ("void", "float", "double", "long double")


@dataclass(frozen=True)
class Scalar:
    """One of C's own types, by its canonical spelling in :data:`SCALARS`."""

    name: str


@dataclass(frozen=True)
class Named:
    """A typedef, record or enum, as C spells it: ``__u64``, ``struct kvm_regs``.

    A type without a name is spelt by its path: ``struct kvm_run.io`` for the type of a member
    called ``io``, ``union kvm_run.<union>`` for the first union that is a member without a name,
    ``union kvm_run.<union2>`` for the second.
    """

    name: str


@dataclass(frozen=True)
class Pointer:
    to: Type
    const: bool = False
    """Whether what it points to is const."""
    volatile: bool = False
    """Whether it is volatile."""


@dataclass(frozen=True)
class Array:
    of: Type
    count: int | None
    """None for a flexible array."""


@dataclass(frozen=True)
class Function:
    result: Type
    parameters: tuple[tuple[str, Type], ...]
    variadic: bool = False


Type = Scalar | Named | Pointer | Array | Function


def spell(type: Type) -> str:
    """The type as the facts files write it."""
    match type:
        case Scalar(name) | Named(name):
            return name
        case Pointer(to, const, volatile):
            return f"{spell(to)}{' const' * const}{' volatile' * volatile}*"
        case Array():
            dimensions = ""
            while isinstance(type, Array):
                dimensions += "[]" if type.count is None else f"[{type.count}]"
                type = type.of
            return spell(type) + dimensions
        case Function(result, parameters, variadic):
            listed = [f"{spell(of)} {name}".rstrip() for name, of in parameters]
            return f"{spell(result)}({', '.join(listed + ['...'] * variadic)})"


def declare(type: Type, inner: str = "") -> str:
    """The type as C writes it, around the declarator ``inner``: ``int (*inner)(void *)``."""
    match type:
        case Scalar(name) | Named(name):
            return f"{name} {inner}".rstrip()
        case Pointer(to, const, volatile):
            qualifiers = "const " * const + "volatile " * volatile
            if isinstance(to, Array | Function):
                inner = f"(*{inner})"
            elif isinstance(to, Pointer):  # where qualifiers are written after the star
                return declare(to, f"{qualifiers}*{inner}")
            else:
                inner = f"*{inner}"
            return qualifiers + declare(to, inner)
        case Array(of, count):
            return declare(of, f"{inner}[{'' if count is None else count}]")
        case Function(result, parameters, variadic):
            listed = [declare(of, name) for name, of in parameters] + ["..."] * variadic
            return declare(result, f"{inner}({', '.join(listed) or 'void'})")


_TOKEN = re.compile(
    r"\s*((?:struct|union|enum) [\w.<>]+|(?:un)?signed (?:__int128|char|short|int|long long|long)\b"
    r"|long (?:long|double)\b|\.\.\.|[\w.<>]+|[*\[\](),])"
)


def parse(text: str) -> Type:
    """Read what :func:`spell` wrote; ValueError if it is not a type."""
    tokens = list(_tokens(text))
    type, rest = _parse(tokens)
    if rest:
        raise ValueError(f"{''.join(rest)!r} follows the type in {text!r}")
    return type


def _tokens(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"{text[at:]!r} is not part of a type in {text!r}")
        yield match[1]
        at = match.end()


def _parse(tokens: list[str]) -> tuple[Type, list[str]]:
    if not tokens or not re.match(r"[\w]", tokens[0]):
        raise ValueError("a type is missing")
    head, *tokens = tokens
    type: Type = Scalar(head) if head in SCALARS else Named(head)
    while tokens:
        match tokens:
            case ["*", *rest]:
                type, tokens = Pointer(type), rest
            case ["const", "*", *rest]:
                type, tokens = Pointer(type, const=True), rest
            case ["volatile", "*", *rest]:
                type, tokens = Pointer(type, volatile=True), rest
            case ["const", "volatile", "*", *rest]:
                type, tokens = Pointer(type, const=True, volatile=True), rest
            case ["[", *_]:
                counts: list[int | None] = []
                while tokens[:1] == ["["]:
                    digits, tokens = tokens[1:2], tokens[2:]
                    if digits != ["]"]:
                        counts.append(int("".join(digits)))
                        if tokens[:1] != ["]"]:
                            raise ValueError("a ']' is missing")
                        tokens = tokens[1:]
                    else:
                        counts.append(None)
                for count in reversed(counts):
                    type = Array(type, count)
            case ["(", *rest]:
                type, tokens = _parse_parameters(type, rest)
            case _:
                break
    return type, tokens


def _parse_parameters(result: Type, tokens: list[str]) -> tuple[Function, list[str]]:
    parameters: list[tuple[str, Type]] = []
    variadic = False
    while tokens[:1] != [")"]:
        if tokens[:1] == ["..."]:
            variadic, tokens = True, tokens[1:]
        else:
            of, tokens = _parse(tokens)
            name = ""
            if tokens and re.fullmatch(r"\w+", tokens[0]):
                name, *tokens = tokens
            parameters.append((name, of))
        if tokens[:1] == [","]:
            tokens = tokens[1:]
        elif tokens[:1] != [")"]:
            raise ValueError("a ')' is missing")
    return Function(result, tuple(parameters), variadic), tokens[1:]
