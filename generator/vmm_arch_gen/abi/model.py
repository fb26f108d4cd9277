"""The facts of one target's ABI, as values.

:class:`Abi` is what the headers seem to say. :data:`VerifiedAbi` is what a compiler for the target
has agreed to: only ``vmm_arch_gen.extract.verify`` and ``vmm_arch_gen.abi.reader`` make one, and
nothing else is accepted by what emits code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NewType

from vmm_arch_gen.abi.expressions import Expression
from vmm_arch_gen.abi.types import Scalar, Type

BitFieldRules = Literal["sysv", "aapcs", "ms"]
IoctlRules = Literal["generic", "bsd"]
"""Whose rules an ioctl number is made by: asm-generic/ioctl.h's, or sys/ioccom.h's."""


@dataclass(frozen=True)
class DataModel:
    """What a compiler decides about C's own types."""

    long: int
    """Bytes of a ``long``: 8 for LP64 (Linux), 4 for LLP64 (Windows)."""
    pointer: int
    byte_order: Literal["little", "big"]
    signed_char: bool
    bit_fields: BitFieldRules
    """Whose rules place bit-fields: System V's, Arm's or Microsoft's."""
    int128_align: int = 16
    """What an ``__int128`` is aligned to, in bytes: s390x has no such registers and says 8."""
    long_double: int = 16
    """Bytes of a ``long double``: 8 for Microsoft's compiler and for Apple's on Arm."""


@dataclass(frozen=True)
class Constant:
    """A macro that is an integer."""

    name: str
    value: int
    radix: Literal[10, 16]
    """How to write it: as the header does."""
    header: str


@dataclass(frozen=True)
class String:
    """A macro that is a text."""

    name: str
    value: bytes
    """Without the zero that C puts at its end."""
    header: str


Direction = Literal["none", "read", "write", "readwrite"]


@dataclass(frozen=True)
class Ioctl:
    """A macro that is an ioctl number."""

    name: str
    value: int
    direction: Direction
    """Seen from user space, as ``_IOR`` and ``_IOW`` do."""
    argument: Type | None
    """What the number says its argument is; None where the number carries no size."""
    header: str


@dataclass(frozen=True)
class MacroFunction:
    """A macro with arguments whose value is an expression of them.

    An argument that is a number has C's type ``unsigned long long``; others are the name of a type,
    or of a record's member.
    """

    name: str
    parameters: tuple[str, ...]
    value: Expression
    header: str
    statements: bool = field(default=False, compare=False)
    """Whether its body has statements, so that C cannot use it where it wants a constant: the proof
    has to know."""


@dataclass(frozen=True)
class Enum:
    key: str
    """``enum NAME``, the typedef's name, or ``enum <FIRST_ENUMERATOR>`` for one without a name."""
    underlying: Scalar
    enumerators: tuple[tuple[str, int], ...]
    header: str


@dataclass(frozen=True)
class Typedef:
    name: str
    type: Type
    aligned: int | None
    """The alignment that an attribute gives it, in bytes."""
    header: str


@dataclass(frozen=True)
class FunctionPrototype:
    name: str
    type: Type
    header: str


@dataclass(frozen=True)
class Member:
    """One member of a record, as declared."""

    name: str
    """Empty for an unnamed record or an unnamed bit-field."""
    type: Type
    bits: int | None = None
    """The width of a bit-field."""
    aligned: int | None = None
    packed: bool = False
    """Whether an attribute of its own packs it."""


@dataclass(frozen=True)
class Record:
    """A struct or union, as declared."""

    key: str
    """As C spells it (``struct kvm_regs``, ``WHV_UINT128``), or the path of an unnamed type."""
    kind: Literal["struct", "union"]
    members: tuple[Member, ...]
    packed: bool
    aligned: int | None
    header: str
    pack: int | None = None
    """What ``#pragma pack`` limits the alignment of members to, in bytes."""

    @property
    def unnamed(self) -> bool:
        """Whether C has no name for it and it can only be reached through a member."""
        return "." in self.key


@dataclass(frozen=True)
class Layout:
    """Where a record's members lie."""

    size: int
    align: int
    offsets: tuple[int, ...]
    """Of each member, in *bits* from the start of the record."""


@dataclass(frozen=True)
class Omission:
    """A declaration that is not among the facts, and why."""

    kind: str
    name: str
    header: str
    reason: str


@dataclass(frozen=True)
class Abi:
    """Everything that a target's headers declare."""

    target: str
    model: DataModel
    origin: str
    """What the headers are and whose: ``Linux 7.2.0 headers, ziglang 0.17.1``."""
    headers_digest: str
    """The SHA-256 of the headers' names and contents."""
    headers: tuple[str, ...]
    """Those that were read, relative to their include folders."""
    constants: tuple[Constant, ...]
    enums: Mapping[str, Enum]
    functions: tuple[FunctionPrototype, ...]
    ioctls: tuple[Ioctl, ...]
    records: Mapping[str, Record]
    typedefs: Mapping[str, Typedef]
    omissions: tuple[Omission, ...]
    layouts: Mapping[str, Layout]
    strings: tuple[String, ...]
    ioctl_rules: IoctlRules
    macros: tuple[MacroFunction, ...]
    """Those that take arguments."""


VerifiedAbi = NewType("VerifiedAbi", Abi)
