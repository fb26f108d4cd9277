"""A device's own state: what it consists of, and the check of a state that comes from outside.

A state is a dictionary of values that JSON has; a device's table ``STATE`` has a field for each of
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol, TypeAlias

from vmm_arch.errors import StateError


class Field(Protocol):
    """What values one entry of a state may have."""

    def accepts(self, value: Any, /) -> bool: ...
    def __str__(self) -> str:
        """What it accepts, for messages that say "expected …"."""


Fields: TypeAlias = Mapping[str, Field]


@dataclass(frozen=True)
class Number:
    """An unsigned number of so many bits."""

    bits: int

    def accepts(self, value: Any) -> bool:
        return type(value) is int and 0 <= value < 1 << self.bits

    def __str__(self) -> str:
        return f"an unsigned {self.bits}-bit number"


@dataclass(frozen=True)
class Choice:
    """One of some numbers."""

    numbers: tuple[int, ...]

    def accepts(self, value: Any) -> bool:
        return type(value) is int and value in self.numbers

    def __str__(self) -> str:
        return "one of " + ", ".join(map(str, self.numbers))


class Flag:
    """True or false."""

    def accepts(self, value: Any) -> bool:
        return type(value) is bool

    def __str__(self) -> str:
        return "true or false"


@dataclass(frozen=True)
class Bytes:
    """Bytes, as text of two hexadecimal digits for each."""

    fewest: int = 0
    most: int | None = None

    def accepts(self, value: Any) -> bool:
        if type(value) is not str or len(value) % 2 or not set(value) <= set("0123456789abcdef"):
            return False
        return self.fewest <= len(value) // 2 and (
            self.most is None or len(value) // 2 <= self.most
        )

    def __str__(self) -> str:
        if self.most is None:
            count = f"{self.fewest} or more" if self.fewest else "any number of"
        elif self.fewest == self.most:
            count = str(self.most)
        else:
            count = f"{self.fewest} to {self.most}" if self.fewest else f"at most {self.most}"
        return f"{count} bytes in hexadecimal digits"


FLAG: Final = Flag()


def problems(fields: Fields, state: Any) -> list[str]:
    """Everything that is wrong with a state; empty if a device can have it."""
    if not isinstance(state, Mapping):
        return [f"expected a dictionary, got {type(state).__name__}"]
    found = [f"{name}: missing" for name in fields if name not in state]
    for name, value in state.items():
        if name not in fields:
            found.append(f"{name!s:.40}: no such entry")
        elif not fields[name].accepts(value):
            found.append(f"{name}: expected {fields[name]}, got {value!r:.40}")
    return found


def check(device: StatefulDevice, state: Any) -> None:
    """Raise StateError if a device cannot have this state."""
    if wrong := problems(device.STATE, state):
        what = type(device).__name__
        raise StateError("restore", [f"{what}: {problem}" for problem in wrong])


class StatefulDevice(Protocol):
    """A device that can be saved and restored, beside what every device can.

    Other threads than the vCPUs' may use a device, such as one that receives characters. Then it
    has an attribute ``lock``, a :class:`threading.RLock` that those threads take, so that
    :meth:`Bus.held` can keep them out.
    """

    @property
    def STATE(self) -> Fields:
        """What its state consists of; empty if it has none."""

    def save(self) -> dict[str, Any]:
        """Return its state: values that JSON has, by the names in ``STATE``."""

    def restore(self, state: Mapping[str, Any], /) -> None:
        """Take a state over, or raise StateError and change nothing.

        It sends nothing and leaves its interrupt line alone: where that stands is part of the state of the
        interrupt controllers.
        """


class Stateless:
    """For devices without a state."""

    STATE: ClassVar[Fields] = {}

    def save(self) -> dict[str, Any]:
        """Return the empty state."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Raise StateError unless the state is empty."""
        check(self, state)
