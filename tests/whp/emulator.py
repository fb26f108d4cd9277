"""The instruction emulator as a VMM uses it: its callbacks reach a partition and a device."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from vmm_arch.abi import whp_x86_64 as abi

from whp.library import Partition, hresult, load

E_FAIL = -0x7FFFBFFB
"""0x80004005, as a callback returns it."""
PAGE = 0x1000

Access = tuple[str, int, int, int]
"""What it is, address or port, size and value of one access."""


@dataclass
class Device:
    """Memory and ports that nothing is mapped at: every access is written down."""

    base: int
    memory: bytearray
    ports: dict[int, list[int]] = field(default_factory=dict)
    """What is read from a port, one after another."""
    accesses: list[Access] = field(default_factory=list)


class Emulator:
    """An emulator for one partition's first processor."""

    def __init__(self, partition: Partition, device: Device) -> None:
        self.partition, self.device = partition, device
        self.refuse: set[str] = set()
        """The callbacks that fail, by their kind: io, memory, get, set, translate."""
        self.misaligned = 0
        self.sets = 0
        self._callbacks = (
            abi.WHV_EMULATOR_IO_PORT_CALLBACK(self._io),
            abi.WHV_EMULATOR_MEMORY_CALLBACK(self._memory),
            abi.WHV_EMULATOR_GET_VIRTUAL_PROCESSOR_REGISTERS_CALLBACK(self._get),
            abi.WHV_EMULATOR_SET_VIRTUAL_PROCESSOR_REGISTERS_CALLBACK(self._set),
            abi.WHV_EMULATOR_TRANSLATE_GVA_PAGE_CALLBACK(self._translate),
        )
        record = abi.WHV_EMULATOR_CALLBACKS()
        record.Size = ctypes.sizeof(record)
        names = [name for name, *_ in record._fields_ if str(name).startswith("WHvEmulator")]
        for name, callback in zip(names, self._callbacks, strict=True):
            setattr(record, name, ctypes.cast(callback, ctypes.c_void_p).value)
        self.library = load("WinHvEmulation.dll", "winhvemulation.h")
        self.handle = ctypes.c_void_p()
        assert not self.library.WHvEmulatorCreateEmulator(
            ctypes.byref(record), ctypes.byref(self.handle)
        )

    def __enter__(self) -> Emulator:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert not self.library.WHvEmulatorDestroyEmulator(self.handle)

    def emulate(self, exit: Any) -> Any:
        """Carry out an exit's instruction: the WHV_EMULATOR_STATUS."""
        is_port = exit.ExitReason == abi.WHvRunVpExitReasonX64IoPortAccess
        access = exit.IoPortAccess if is_port else exit.MemoryAccess
        status = abi.WHV_EMULATOR_STATUS()
        name = "WHvEmulatorTryIoEmulation" if is_port else "WHvEmulatorTryMmioEmulation"
        arguments = ctypes.byref(exit.VpContext), ctypes.byref(access), ctypes.byref(status)
        assert not getattr(self.library, name)(self.handle, None, *arguments)
        return status

    def _io(self, _: int | None, record: int) -> int:
        access = abi.WHV_EMULATOR_IO_ACCESS_INFO.from_address(record)
        if "io" in self.refuse:
            return E_FAIL
        if not access.Direction:
            access.Data = self.device.ports[access.Port].pop(0)
        kind = "out" if access.Direction else "in"
        self.device.accesses.append((kind, access.Port, access.AccessSize, access.Data))
        return 0

    def _memory(self, _: int | None, record: int) -> int:
        access = abi.WHV_EMULATOR_MEMORY_ACCESS_INFO.from_address(record)
        if "memory" in self.refuse:
            return E_FAIL
        address, size = access.GpaAddress, access.AccessSize
        offset = address - self.device.base
        if not 0 <= offset < len(self.device.memory):
            name = "WHvWriteGpaRange" if access.Direction else "WHvReadGpaRange"
            controls = abi.WHV_ACCESS_GPA_CONTROLS()
            data = access.Data
            done = hresult(name, self.partition.handle, 0, address, controls, data, size)
            return E_FAIL if done else 0
        if access.Direction:
            self.device.memory[offset : offset + size] = bytes(access.Data)[:size]
        else:
            for index, byte in enumerate(self.device.memory[offset : offset + size]):
                access.Data[index] = byte
        value = int.from_bytes(bytes(access.Data)[:size], "little")
        self.device.accesses.append(("write" if access.Direction else "read", address, size, value))
        return 0

    def _get(self, _: int | None, names: int, count: int, values: int) -> int:
        if "get" in self.refuse:
            return E_FAIL
        aligned = (abi.WHV_REGISTER_VALUE * count)()
        done = self._registers("WHvGetVirtualProcessorRegisters", names, count, aligned)
        ctypes.memmove(values, aligned, ctypes.sizeof(aligned))
        return done

    def _set(self, _: int | None, names: int, count: int, values: int) -> int:
        self.sets += 1
        if "set" in self.refuse:
            return E_FAIL
        data = ctypes.string_at(values, count * ctypes.sizeof(abi.WHV_REGISTER_VALUE))
        aligned = (abi.WHV_REGISTER_VALUE * count).from_buffer_copy(data)
        return self._registers("WHvSetVirtualProcessorRegisters", names, count, aligned)

    def _registers(self, name: str, names: int, count: int, values: Any) -> int:
        return E_FAIL if hresult(name, self.partition.handle, 0, names, count, values) else 0

    def _translate(self, _: int | None, gva: int, flags: int, result: int, gpa: int) -> int:
        if "translate" in self.refuse:
            return E_FAIL
        record = abi.WHV_TRANSLATE_GVA_RESULT()
        arguments = self.partition.handle, 0, gva, flags, ctypes.byref(record), gpa
        failed = hresult("WHvTranslateGva", *arguments)
        ctypes.c_uint32.from_address(result).value = record.ResultCode
        ctypes.c_uint64.from_address(gpa).value += self.misaligned
        return E_FAIL if failed else 0
