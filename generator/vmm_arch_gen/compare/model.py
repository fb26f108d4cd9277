"""What two versions of an ABI differ in, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """What happened to something, the gravest first: who used it as it was has to know."""

    REMOVED = "removed"
    RENAMED = "renamed"
    MOVED = "moved"
    RESIZED = "resized"
    RETYPED = "retyped"
    RENUMBERED = "renumbered"
    CHANGED = "changed"
    ADDED = "added"
    RESTATED = "restated"
    """It means the same to a program, but is declared elsewhere or otherwise."""

    @property
    def breaking(self) -> bool:
        """Whether a program made for the old version may not work with the new one."""
        return self not in (Kind.ADDED, Kind.RESTATED)


Facts = Mapping[str, "str | int"]
"""One version of something: what there is to say of it, by name."""


@dataclass(frozen=True)
class FieldChange:
    """A member of a record that changed, or one beside it that did not."""

    kind: Kind | None
    """None for a neighbour, which shows where the change is."""
    path: str
    """Its name now; before, if there is none now."""
    old: Facts | None
    """path, type, offset and size in bytes; for a bit-field ``bit`` and ``bits`` too."""
    new: Facts | None


@dataclass(frozen=True)
class Change:
    kind: Kind
    what: str
    """constant, string, enumerator, ioctl, macro, struct, union, typedef, enum, function, model or
    omission."""
    name: str
    old: Facts | None
    new: Facts | None
    renamed_to: str | None = None
    fields: tuple[FieldChange, ...] = ()
    """Of a record, what changed inside it, in the order of the offsets."""
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """All that changed for one target."""

    target: str
    old: str | None
    """What the headers were; None where there was no such target."""
    new: str | None
    changes: tuple[Change, ...] = field(default=())

    @property
    def breaking(self) -> int:
        """How many changes are breaking ones; to lose a target is one."""
        return sum(change.kind.breaking for change in self.changes) + (self.new is None)

    @property
    def compatible(self) -> int:
        """How many changes are additions, or change nothing for a program."""
        return len(self.changes) + (self.old is None) + (self.new is None) - self.breaking
