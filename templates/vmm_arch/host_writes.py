"""What of guest memory the host has written, for those who keep track of all that is written.

Addresses are guest-physical. A page that was written through :meth:`GuestMemory.write` is known
exactly. What is done with a view cannot be seen: it counts as written as a whole while it is alive,
and so does everything that was made of it, such as slices or arrays that share its memory.
"""

from __future__ import annotations

import ctypes
import weakref
from functools import cache
from mmap import mmap
from typing import Final, TypeAlias

_PAGE: Final = 0x1000
Range: TypeAlias = tuple[int, int]
"""From the first address to the one after the last."""


@cache
def _bytes(size: int) -> type[ctypes.Array[ctypes.c_ubyte]]:
    return ctypes.c_ubyte * size


class HostWrites:
    """What the host has written since it was last asked; made by :meth:`GuestMemory.watch`."""

    __slots__ = ("__weakref__", "_pages", "_viewed", "_views")

    def __init__(self, views: Views) -> None:
        self._pages: set[int] = set()
        self._viewed = views.ranges()
        """What there were views of since; some may be gone again."""
        self._views = views

    def note(self, address: int, size: int) -> None:
        """Note that some bytes were written. Call it afterwards: what is noted before may be taken
        and reset by another thread before it is written."""
        if size:
            first = address - address % _PAGE
            self._pages.add(first)
            if address + size > first + _PAGE:
                self._pages.update(range(first + _PAGE, address + size, _PAGE))

    def note_view(self, viewed: Range) -> None:
        """Note a new view."""
        self._viewed.append(viewed)

    @property
    def is_clean(self) -> bool:
        """Whether nothing was written since take(), and nothing is viewed."""
        return not (self._pages or self._viewed)

    def take(self) -> tuple[set[int], list[Range]]:
        """Return pages and ranges that were written, and forget all but those with live views.

        What another thread writes meanwhile is among them now or the next time.
        """
        if not self._pages and not self._viewed:
            return set(), []
        pages = self._pages.copy()
        self._pages -= pages  # not a new set: another thread may be adding to this one
        viewed, self._viewed = self._viewed, []
        self._viewed += self._views.ranges()
        return pages, viewed


class Views:
    """The live views of a memory."""

    __slots__ = ("_made", "_many")

    def __init__(self) -> None:
        self._made: list[tuple[weakref.ref[object], Range]] = []
        self._many = 64
        """How many are looked through for those that are gone."""

    def make(self, mapping: mmap, offset: int, viewed: Range) -> memoryview:
        """Make a view of some bytes of a mapping."""
        # A memoryview's slices keep its owner alive, and not itself: so the owner is one that can
        # be watched. A type for each size would cost more than the view: so it may be larger.
        size = viewed[1] - viewed[0]
        room = min(1 << size.bit_length(), len(mapping))
        begin = min(offset, len(mapping) - room)
        owner = _bytes(room).from_buffer(mapping, begin)
        if len(self._made) >= self._many:
            self.ranges()
            self._many = max(64, 2 * len(self._made))
        self._made.append((weakref.ref(owner), viewed))
        return memoryview(owner).cast("B")[offset - begin : offset - begin + size]

    def ranges(self) -> list[Range]:
        """What there are views of."""
        self._made = [made for made in self._made if made[0]() is not None]
        return [viewed for _, viewed in self._made]
