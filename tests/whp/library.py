"""The platform's functions, called as a VMM calls them: partitions, processors, exits.

Works with Linux's Python and with Windows', and needs no test framework. Names and records are those
of the raw ABI; what a function returns becomes an :class:`HresultError` if it is a failure.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from vmm_arch.abi import declare
from vmm_arch.abi import whp_x86_64 as abi

FOLDER = "VMM_ARCH_WHP"
"""The environment variable that names the folder with the libraries; Windows' are the system's."""
_LOAD_LIBRARY_SEARCH_SYSTEM32 = 0x800

RWX = abi.WHvMapGpaRangeFlagRead | abi.WHvMapGpaRangeFlagWrite | abi.WHvMapGpaRangeFlagExecute


class HresultError(Exception):
    """A function failed; its HRESULT is the argument."""

    def __init__(self, function: str, hresult: int) -> None:
        super().__init__(f"{function} returned {hresult:#010x}")
        self.hresult = hresult


@cache
def load(name: str, header: str) -> ctypes.CDLL:
    """Load one of the two libraries and declare the functions of its header."""
    if sys.platform == "win32":
        library: ctypes.CDLL = ctypes.WinDLL(name, winmode=_LOAD_LIBRARY_SEARCH_SYSTEM32)
    else:
        library = ctypes.CDLL(str(Path(os.environ[FOLDER], name)))
    declare(library, cast("Mapping[str, tuple[Any, list[Any]]]", abi.PROTOTYPES[header]))
    return library


def hresult(name: str, *arguments: Any) -> int:
    """Call a function of the platform and return its HRESULT as it is written: unsigned."""
    function = getattr(load("WinHvPlatform.dll", "winhvplatform.h"), name)
    return int(function(*arguments)) & 0xFFFFFFFF


def call(name: str, *arguments: Any) -> None:
    """Call a function of the platform that has to succeed."""
    result = hresult(name, *arguments)
    if result & 0x80000000:
        raise HresultError(name, result)


def buffer(data: bytearray) -> Any:
    """What a function is given to read or write these bytes."""
    return (ctypes.c_char * len(data)).from_buffer(data)


class Memory:
    """Zeroed, page-aligned memory, as the caller of WHvMapGpaRange has it."""

    def __init__(self, size: int) -> None:
        self._map = mmap.mmap(-1, size)
        self.size = size
        self._view = (ctypes.c_char * size).from_buffer(self._map)
        self.address = ctypes.addressof(self._view)

    def __getitem__(self, at: slice) -> bytes:
        return bytes(self._map[at])

    def __setitem__(self, at: int, data: bytes) -> None:
        self._map[at : at + len(data)] = data


def segment(selector: int, attributes: int, base: int, limit: int = 0xFFFF) -> Any:
    """A segment register's value; attributes as in a descriptor's flag word."""
    record = abi.WHV_REGISTER_VALUE()
    record.Segment.Base, record.Segment.Limit = base, limit
    record.Segment.Selector, record.Segment.Attributes = selector, attributes
    return record


def table(base: int, limit: int) -> Any:
    """A descriptor table register's value."""
    record = abi.WHV_REGISTER_VALUE()
    record.Table.Base, record.Table.Limit = base, limit
    return record


Values = dict[int, Any]
"""Register names and values: an integer of up to 128 bits, or a WHV_REGISTER_VALUE."""


class Partition:
    """A partition with its processors, deleted at the end of the context."""

    def __init__(self, processors: int = 1, properties: Iterable[tuple[int, Any]] = ()) -> None:
        handle = ctypes.c_void_p()
        call("WHvCreatePartition", ctypes.byref(handle))
        self.handle = handle
        self.kept: list[Memory] = []
        try:
            self.set(abi.WHvPartitionPropertyCodeProcessorCount, ctypes.c_uint32(processors))
            for code, value in properties:
                self.set(code, value)
            call("WHvSetupPartition", handle)
            for index in range(processors):
                call("WHvCreateVirtualProcessor", handle, index, 0)
        except BaseException:
            call("WHvDeletePartition", handle)
            raise

    def __enter__(self) -> Partition:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        call("WHvDeletePartition", self.handle)

    def set(self, code: int, value: Any) -> None:
        call(
            "WHvSetPartitionProperty", self.handle, code, ctypes.byref(value), ctypes.sizeof(value)
        )

    def map(self, address: int, size: int, flags: int = RWX) -> Memory:
        """Map new memory at a guest-physical address."""
        memory = Memory(size)
        self.kept.append(memory)
        call("WHvMapGpaRange", self.handle, memory.address, address, size, flags)
        return memory

    def set_registers(self, values: Values, index: int = 0) -> None:
        call("WHvSetVirtualProcessorRegisters", self.handle, index, *_encoded(values))

    def registers(self, *names: int, index: int = 0) -> list[Any]:
        """The WHV_REGISTER_VALUE of each name."""
        array = (ctypes.c_int32 * len(names))(*_signed(names))
        values = (abi.WHV_REGISTER_VALUE * len(names))()
        call("WHvGetVirtualProcessorRegisters", self.handle, index, array, len(names), values)
        return list(values)

    def register(self, name: int, index: int = 0) -> int:
        """A register's lower 64 bits."""
        return int(self.registers(name, index=index)[0].Reg64)

    def run(self, index: int = 0) -> Any:
        """Run to the next exit: a WHV_RUN_VP_EXIT_CONTEXT."""
        exit = abi.WHV_RUN_VP_EXIT_CONTEXT()
        size = ctypes.sizeof(exit)
        call("WHvRunVirtualProcessor", self.handle, index, ctypes.byref(exit), size)
        return exit

    def step_over(self, exit: Any, index: int = 0, **registers: int) -> None:
        """Go on after an exit's instruction, with some registers changed."""
        values: Values = {
            abi.WHvX64RegisterRip: exit.VpContext.Rip + exit.VpContext.InstructionLength
        }
        for name, value in registers.items():
            values[getattr(abi, f"WHvX64Register{name}")] = value
        self.set_registers(values, index)


def _signed(names: Iterable[int]) -> Iterable[int]:
    return (name - (1 << 32) if name >> 31 else name for name in names)


def _encoded(values: Values) -> tuple[Any, int, Any]:
    names = (ctypes.c_int32 * len(values))(*_signed(values))
    records = (abi.WHV_REGISTER_VALUE * len(values))()
    for index, value in enumerate(values.values()):
        if isinstance(value, int):
            records[index].Reg128.Low64 = value & (1 << 64) - 1
            records[index].Reg128.High64 = value >> 64
        else:
            ctypes.memmove(ctypes.byref(records, index * 16), ctypes.byref(value), 16)
    return names, len(values), records


def real_mode(rip: int, **registers: int) -> Values:
    """The registers of a processor in real mode, all segments at 0."""
    data = segment(0, 0x93, 0)
    values: Values = {
        abi.WHvX64RegisterCs: segment(0, 0x9B, 0),
        abi.WHvX64RegisterDs: data,
        abi.WHvX64RegisterEs: data,
        abi.WHvX64RegisterSs: data,
        abi.WHvX64RegisterRip: rip,
        abi.WHvX64RegisterRflags: 2,
    }
    return values | _named(registers)


def long_mode(rip: int, page_tables: int, **registers: int) -> Values:
    """The registers of a processor in 64-bit mode."""
    data = segment(0x10, 0xC093, 0, 0xFFFFFFFF)
    values: Values = {
        abi.WHvX64RegisterCs: segment(8, 0xA09B, 0, 0xFFFFFFFF),
        abi.WHvX64RegisterDs: data,
        abi.WHvX64RegisterEs: data,
        abi.WHvX64RegisterSs: data,
        abi.WHvX64RegisterTr: segment(0x18, 0x8B, 0, 0xFFFF),
        abi.WHvX64RegisterCr4: 1 << 5,
        abi.WHvX64RegisterCr3: page_tables,
        abi.WHvX64RegisterEfer: 0x500,
        abi.WHvX64RegisterCr0: 0x8000_0011,
        abi.WHvX64RegisterRip: rip,
        abi.WHvX64RegisterRflags: 2,
    }
    return values | _named(registers)


def identity_tables(memory: Memory, at: int) -> None:
    """Write four pages of tables that map the first GiB, and the fourth, to themselves.

    In pages of 2 MiB, since not every processor has larger ones. The fourth GiB has the local APIC.
    """

    def write(address: int, entry: int) -> None:
        memory[address] = entry.to_bytes(8, "little")

    write(at, at + 0x1003)
    for directory, gigabyte in ((at + 0x2000, 0), (at + 0x3000, 3)):
        write(at + 0x1000 + 8 * gigabyte, directory | 3)
        for index in range(512):
            write(directory + 8 * index, gigabyte << 30 | index << 21 | 0x83)


def _named(registers: dict[str, int]) -> Values:
    return {getattr(abi, f"WHvX64Register{name}"): value for name, value in registers.items()}
