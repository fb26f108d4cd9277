"""The memory of a snapshot: a file without a name, which machines map copy-on-write."""

from __future__ import annotations

import os
import sys
import tempfile
import weakref
from collections.abc import Callable
from typing import Any

from vmm_arch.memory import GuestMemory


class MemoryImage:
    """A copy of guest memory at one moment, that costs only the pages that are not zero.

    It is the content of a descriptor, as :meth:`~vmm_arch.memory.GuestMemory.save` writes it.
    """

    __slots__ = ("__weakref__", "_close", "descriptor")
    descriptor: int

    def __init__(self, descriptor: int) -> None:
        """Take over an open descriptor."""
        self.descriptor = descriptor
        self._close = weakref.finalize(self, os.close, descriptor)

    @classmethod
    def of(cls, memory: GuestMemory) -> MemoryImage:
        """Copy memory, which nobody may change meanwhile. Raises OSError."""
        image = cls(_nameless_file())
        try:
            memory.save(image.descriptor)
        except BaseException:
            image.close()
            raise
        return image

    def map(self, make: Callable[..., Any], regions: object) -> Any:
        """Map it copy-on-write: memory of a class ``make``, closed with the machines that hold it."""
        memory = make(regions, file=self.descriptor)
        memory.close_when_released()
        return memory

    def close(self) -> None:
        """Close the descriptor; memory that was mapped from it stays. May be called again."""
        self._close()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return not self._close.alive


def _nameless_file() -> int:
    """Open a file that only its descriptors keep alive; in memory where the system has that."""
    if sys.platform == "linux":
        return os.memfd_create("vmm-arch snapshot")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
