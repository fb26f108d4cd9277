"""KVM's statistics: a file of each machine and vCPU, which describes its own contents.

A header is followed, at the offsets that it names, by an id, descriptors and the values (Linux,
virt/kvm/api.rst, KVM_GET_STATS_FD). Only the values change. Reading them waits for no vCPU.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

from vmm_arch.statistic import Statistic, StatisticKind, StatisticUnit


class StatisticsFormat(NamedTuple):
    """The records and flags of the header that the module was made of."""

    header: type[Any]
    descriptor: type[Any]
    kinds: Mapping[int, StatisticKind]
    units: Mapping[int, StatisticUnit]
    bases: Mapping[int, int]
    masks: tuple[int, int, int]
    """The bits of kind, unit and base in the flags."""


class StatisticsFile:
    """The file of one machine or vCPU; it owns the descriptor."""

    __slots__ = ("_data_offset", "_descriptor", "_entries", "_size", "_unpack")

    def __init__(self, descriptor: int, layout: StatisticsFormat) -> None:
        self._descriptor = descriptor
        try:
            self._read_descriptors(layout)
        except BaseException:
            os.close(descriptor)
            raise

    def _read_descriptors(self, layout: StatisticsFormat) -> None:
        size = ctypes.sizeof(layout.header)
        header = layout.header.from_buffer_copy(self._pread(size, 0))
        self._data_offset = header.data_offset
        length = ctypes.sizeof(layout.descriptor) + header.name_size
        block = self._pread(header.num_desc * length, header.desc_offset)
        kinds, units, bases = layout.masks
        self._entries: list[tuple[str, int, int, Statistic]] = []
        self._size = 0
        for at in range(0, len(block), length):
            found = layout.descriptor.from_buffer_copy(block, at)
            name = block[at + ctypes.sizeof(layout.descriptor) : at + length]
            empty = Statistic(
                (),
                layout.kinds.get(found.flags & kinds, StatisticKind.OTHER),
                layout.units.get(found.flags & units, StatisticUnit.OTHER),
                layout.bases.get(found.flags & bases, 10),
                found.exponent,
                found.bucket_size,
            )
            first = found.offset // 8
            entry = name.partition(b"\0")[0].decode(), first, first + found.size, empty
            self._entries.append(entry)
            self._size = max(self._size, first + found.size)
        self._unpack = struct.Struct(f"={self._size}Q").unpack

    def read(self) -> dict[str, Statistic]:
        """Read all values, at one moment as far as KVM has one."""
        values = self._unpack(self._pread(self._size * 8, self._data_offset))
        return {
            name: Statistic(
                values[first:end],
                empty.kind,
                empty.unit,
                empty.base,
                empty.exponent,
                empty.bucket_size,
            )
            for name, first, end, empty in self._entries
        }

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)

    def _pread(self, size: int, offset: int) -> bytes:
        if not hasattr(os, "pread"):
            raise OSError("this system has no pread(), nor KVM")
        found: bytes = os.pread(self._descriptor, size, offset)
        if len(found) != size:
            raise OSError(f"KVM's statistics end after {len(found)} of {size} bytes at {offset:#x}")
        return found
