"""The members of a ctypes record, and what a class body says of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from vmm_arch_gen.generate.ctypes_types import NO_OTHERS, SHORT, CType, Local, integer

MAKERS = ("any_of", "bit_field", "bits_at", "of", "one_of", "signed_bits_at", "unnamed")
"""What class bodies call, of templates/vmm_arch/abi/records.py."""


@dataclass(frozen=True)
class Field:
    name: str
    type: CType
    role: Literal["member", "unnamed", "filler"]
    """The header's own with a name, the header's own without one, or not in the header."""
    start: int
    """In bits."""
    bits: int | None = None
    view: bool = False
    """Whether it is a bit-field that is a property over bytes, which are a filler of their own."""
    constants: tuple[str, str] | None = None
    """What tells its values' names: one_of or any_of, and how the names begin."""
    hidden: bool = False
    """Whether the type's name means something else inside the class."""
    lends: tuple[tuple[str, CType], ...] = ()
    """Of an unnamed member, the names and types that the record around it has from it."""

    @property
    def members(self) -> tuple[tuple[str, CType], ...]:
        """The names that C finds in the record because of it, with their types."""
        return ((self.name, self.type),) if self.role == "member" else self.lends

    @property
    def _maker(self) -> tuple[str, tuple[str, ...]]:
        """What is called, and what it is given beside the type; nothing for a type alone."""
        if self.constants is not None:
            maker, prefix = self.constants
            return maker, (f'"{prefix}"',)
        if self.role == "unnamed":
            return "unnamed", ()
        if self.view:
            signed = self.type == integer(1, signed=True)
            return "signed_bits_at" if signed else "bits_at", (str(self.start), str(self.bits))
        if self.bits is not None:
            return "bit_field", (str(self.bits),)
        record = not (self.type.plain or self.hidden)
        return "of" if record else "", ()

    @property
    def makers(self) -> Iterator[str]:
        """The names of templates/vmm_arch/abi/records.py that :meth:`statement` uses."""
        maker, _ = self._maker
        if maker:
            yield maker
        if self.hidden:
            yield "of"
        if self.type.plain and not self.view:
            yield SHORT[self.type.name]

    def statement(self, local: Local = NO_OTHERS) -> str:
        """What a class body says of the member."""
        annotation = f": {self.type.annotation(local)}" if self.role == "member" else ""
        text = self.type.short(local)
        if self.hidden:  # it is named by a text
            arguments = (f'"{self.type.short_name(local)}"', *map(str, self.type.counts))
            text = f"{local.get('of', 'of')}({', '.join(arguments)})"
        maker, more = self._maker
        if maker:
            maker = local.get(maker, maker)
            text = f"{maker}({', '.join(more if self.view else (text, *more))})"
        return f"{self.name}{annotation} = {text}"
