"""Emulates the instructions that WHP does not finish, access by access: MMIO and string I/O.

WinHvEmulation calls back in the middle of an instruction and wants each access done at once, but
here each access is an exit, which the VMM answers when it likes. So accesses are recorded. At the
first read without an answer the callback fails, which aborts the emulation. Once there is an answer
the instruction is emulated again from its start, with the recorded accesses replayed: reads return
the recorded values, and nothing is written twice. Registers change once the instruction completes.

Each repetition of a string instruction is emulated as if it were the last one, since replaying a
million accesses for each new one would take too long.

An exception such as KeyboardInterrupt may come at any call, with the GIL or without. So there is no
call between assignments that belong together, and steps that can be repeated store their results
last. Only the thread that uses the vCPU may use this.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, Final, Protocol

from vmm_arch.abi.whp_x86_64 import (
    PROTOTYPES,
    WHV_EMULATOR_CALLBACKS,
    WHV_EMULATOR_IO_ACCESS_INFO,
    WHV_EMULATOR_MEMORY_ACCESS_INFO,
    WHV_EMULATOR_STATUS,
    WHV_REGISTER_VALUE,
    WHV_RUN_VP_EXIT_CONTEXT,
    WHV_EMULATOR_STATUS_struct,
    WHvRegisterPendingEvent,
    WHvRegisterPendingInterruption,
    WHvRunVpExitReasonX64IoPortAccess,
    WHvX64RegisterRcx,
    WHvX64RegisterRdi,
    WHvX64RegisterRip,
    WHvX64RegisterRsi,
)
from vmm_arch.errors import HypervisorError, HypervisorUnavailableError
from vmm_arch.memory import GuestMemory
from vmm_arch.whp import EMULATION, Library

EMULATOR: Final = Library(EMULATION, "winhvemulation.h", PROTOTYPES)

READ: Final = 0
WRITE: Final = 1
MOST_AT_ONCE: Final = 0x1000
"""The most bytes of a string in one port exit, as in KVM."""

_DONE: Final = 0
_ABORTED: Final = -0x7FFFBFFC  # E_ABORT
_PREFIXES: Final = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3")
_REPEAT: Final = frozenset(b"\xf2\xf3")
_ADDRESS_SIZE: Final = 0x67
_STRINGS: Final = frozenset(b"\x6c\x6d\x6e\x6f\xa4\xa5\xaa\xab\xac\xad")
"""INS, OUTS, MOVS, STOS, LODS: the string instructions that only the count ends."""

_TRAP_FLAG: Final = 1 << 8
_FAULT: Final = frozenset({WHvRegisterPendingInterruption, WHvRegisterPendingEvent})
"""The registers that the emulator sets if the instruction faults."""

_IO_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p)
_MEMORY_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p)
_REGISTERS_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p
)
_TRANSLATE_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int32,
    ctypes.c_void_p,
    ctypes.c_uint64,
    ctypes.c_uint32,
    ctypes.c_void_p,
    ctypes.c_void_p,
)


class EmulationFailed(Exception):
    """The emulator cannot emulate the instruction; the message has its status."""


class EmulatedDevice(Protocol):
    """A device of the machine itself, whose accesses are not exits."""

    def read(self, offset: int, size: int, /) -> int: ...
    def write(self, offset: int, size: int, value: int, /) -> None: ...


class Registers(Protocol):
    """What the emulator uses of a vCPU: registers and address translation."""

    def read_registers(self, names: Any, count: int, values: Any, /) -> None: ...
    def write_registers(self, names: Any, count: int, values: Any, /) -> None: ...
    def translate_page(self, address: int, flags: int, result: Any, physical: Any, /) -> None: ...
    def single_stepped(self) -> None: ...


@dataclass(slots=True)
class EmulatedAccess:
    """An access of an instruction: ``count`` values of ``size`` bytes."""

    is_port: bool
    direction: int
    address: int
    """A port number, or a guest-physical address."""
    size: int
    data: bytes = b""
    count: int = 1

    def merges_with(self, other: EmulatedAccess) -> bool:
        """Whether both can be one exit: writes of the same size to the same port."""
        mine = self.is_port, self.direction, self.address, self.size
        theirs = other.is_port, other.direction, other.address, other.size
        return mine == theirs and self.is_port and self.direction == WRITE


class Emulation:
    """The instruction of a vCPU that is being emulated, if any."""

    def __init__(
        self,
        registers: Registers,
        memory: GuestMemory,
        devices: dict[range, EmulatedDevice],
        written: Callable[[int, int], object],
    ) -> None:
        """``written`` is called with address and size of each write to guest memory."""
        self._registers = registers
        self._memory = memory
        self._devices = devices
        self._memory_written = written
        self._handle: ctypes.c_void_p | None = None
        self._callbacks = (
            _IO_CALLBACK(self._guarded(self._port_access)),
            _MEMORY_CALLBACK(self._guarded(self._memory_access)),
            _REGISTERS_CALLBACK(self._guarded(self._get_registers)),
            _REGISTERS_CALLBACK(self._guarded(self._set_registers)),
            _TRANSLATE_CALLBACK(self._guarded(self._translate)),
        )
        self.active = False
        """Whether an instruction is incomplete."""
        self.instruction = b""
        """The bytes of the last instruction, as far as they are known."""
        self.current: EmulatedAccess | None = None
        """The access to return next; the vCPU sets this to None once it has returned it as an exit."""

    def begin(self, context: WHV_RUN_VP_EXIT_CONTEXT, instruction: bytes) -> None:
        """Start with the instruction that caused an exit; `instruction` may be empty if unknown."""
        self._context = WHV_RUN_VP_EXIT_CONTEXT.from_buffer_copy(context)
        self.instruction = instruction
        self._is_port = context.ExitReason == WHvRunVpExitReasonX64IoPortAccess
        self._changed: dict[int, bytes] = {}
        self._log: list[bytes] = []
        self._answers: list[bytes] = []
        self._written: list[EmulatedAccess] = []
        self._unanswered: EmulatedAccess | None = None
        self._bytes_returned = 0
        self._ended = False
        self._single_step = bool(context.VpContext.Rflags & _TRAP_FLAG)
        self._mask = self._count_mask(instruction)
        self._left = self._count() if self._mask else 1
        if self._left == 0:  # no repetition and no access: emulate it as a whole
            self._mask, self._left = 0, 1
        self.current = None
        self.active = True

    def next_access(self) -> EmulatedAccess | None:
        """Emulate up to the next access that is an exit; None once the instruction is complete.

        The access is :attr:`current` until it has been returned as an exit. A read then waits for
        :meth:`answer`. Raises EmulationFailed.
        """
        if self.current is not None:
            return self.current
        while self._unanswered is None and not self._ended and not self._write_is_complete():
            self._step()
        if self._written:
            self._take_write()
        elif self._unanswered is not None:
            self.current, self._unanswered = self._unanswered, None
        else:
            self._commit()
            self.active = False
        return self.current

    def answer(self, access: EmulatedAccess, data: bytes) -> None:
        """Answer a read with all of its values."""
        self._answers = [data[at : at + access.size] for at in range(0, len(data), access.size)]

    def discard(self) -> None:
        """Give up the instruction, but for the repetitions that are complete."""
        self._single_step = False
        self._commit()
        self.active = False

    def close(self) -> None:
        """Destroy the emulator."""
        self.active = False
        if self._handle is not None:
            EMULATOR.WHvEmulatorDestroyEmulator(self._handle)
            self._handle = None

    def _write_is_complete(self) -> bool:
        """Whether there is a write that cannot be merged with what follows."""
        if not self._written:
            return False
        first, last = self._written[0], self._written[-1]
        return not (self._mask and first.is_port and first.merges_with(last))

    def _take_write(self) -> None:
        """Make the first write current, merged with those that continue it."""
        first, *others = self._written
        same = [first, *takewhile(first.merges_with, others)]
        data = b"".join(access.data for access in same)
        access, rest = replace(first, data=data, count=len(same)), self._written[len(same) :]
        self.current, self._written = access, rest

    def _step(self) -> None:
        """Emulate the instruction, or one repetition, up to a read without an answer."""
        status = WHV_EMULATOR_STATUS()
        self._played = 0
        self._fresh: dict[int, bytes] = {}
        self._error: BaseException | None = None
        try:
            self._attempt(status)
        except HypervisorUnavailableError:  # there is no emulator
            raise
        except HypervisorError as error:
            if self._error is None and self._unanswered is None:
                raise EmulationFailed(str(error)) from None
        if self._error is not None:
            raise self._error
        if self._unanswered is not None:
            return
        if not status.EmulationSuccessful:
            raise EmulationFailed(_status(status))
        self._end_step()

    def _attempt(self, status: WHV_EMULATOR_STATUS) -> None:
        context, handle = ctypes.byref(self._context.VpContext), self._emulator()
        if not self._is_port:
            access = ctypes.byref(self._context.MemoryAccess)
            EMULATOR.WHvEmulatorTryMmioEmulation(
                handle, None, context, access, ctypes.byref(status)
            )
            return
        port = self._context.IoPortAccess
        if self._mask:
            port.Rcx = 1
        for name, field in ((WHvX64RegisterRsi, "Rsi"), (WHvX64RegisterRdi, "Rdi")):
            if name in self._changed:
                setattr(port, field, int.from_bytes(self._changed[name], "little"))
        EMULATOR.WHvEmulatorTryIoEmulation(
            handle, None, context, ctypes.byref(port), ctypes.byref(status)
        )

    def _end_step(self) -> None:
        """Count a repetition, and return to the instruction unless it was the last one."""
        changed = self._changed | self._fresh
        left, ended = 0, True
        if self._mask:
            left = self._left - 1
            count = self._original_count & ~self._mask | left
            changed[WHvX64RegisterRcx] = count.to_bytes(16, "little")
            much = self._bytes_returned >= MOST_AT_ONCE and not self._answers
            ended = left == 0 or much or self._single_step
        if left:
            rip: int = self._context.VpContext.Rip
            changed[WHvX64RegisterRip] = rip.to_bytes(16, "little")
        self._changed, self._left, self._ended, self._log = changed, left, ended, []

    def _count_mask(self, instruction: bytes) -> int:
        """The mask of a repeated string instruction's counter; 0 for any other instruction."""
        cs = self._context.VpContext.Cs
        long = bool(cs.Long and self._context.VpContext.ExecutionState.EferLma)
        repeats = False
        narrow = False
        for byte in instruction:
            if byte in _PREFIXES:
                repeats |= byte in _REPEAT
                narrow |= byte == _ADDRESS_SIZE
            elif not (long and byte & 0xF0 == 0x40):  # REX
                if not repeats or byte not in _STRINGS:
                    return 0
                if long:
                    return 0xFFFFFFFF if narrow else 0xFFFFFFFF_FFFFFFFF
                return 0xFFFFFFFF if bool(cs.Default) != narrow else 0xFFFF
        return 0

    def _count(self) -> int:
        names = (ctypes.c_uint32 * 1)(WHvX64RegisterRcx)
        values = (WHV_REGISTER_VALUE * 1)()
        self._registers.read_registers(names, 1, values)
        self._original_count: int = values[0].Reg64
        return self._original_count & self._mask

    def _commit(self) -> None:
        if not self._changed:
            return
        count = len(self._changed)
        names = (ctypes.c_uint32 * count)(*self._changed)
        values = (WHV_REGISTER_VALUE * count).from_buffer_copy(b"".join(self._changed.values()))
        self._registers.write_registers(names, count, values)
        if self._single_step and _FAULT.isdisjoint(self._changed):
            self._registers.single_stepped()

    def _emulator(self) -> ctypes.c_void_p:
        if self._handle is None:
            handle = ctypes.c_void_p()
            pointers = [
                ctypes.cast(callback, ctypes.c_void_p).value for callback in self._callbacks
            ]
            callbacks = WHV_EMULATOR_CALLBACKS(ctypes.sizeof(WHV_EMULATOR_CALLBACKS), 0, *pointers)
            EMULATOR.WHvEmulatorCreateEmulator(ctypes.byref(callbacks), ctypes.byref(handle))
            self._handle = handle
        return self._handle

    # The emulator's callbacks. No exception can pass through it: it is stored until it returns.

    def _guarded(self, callback: Callable[..., int]) -> Callable[..., int]:
        def guarded(context: object, *arguments: Any) -> int:
            try:
                return callback(*arguments)
            except BaseException as trouble:
                self._error = trouble
                return _ABORTED

        return guarded

    def _port_access(self, address: int) -> int:
        info = WHV_EMULATOR_IO_ACCESS_INFO.from_address(address)
        port, size = info.Port, info.AccessSize
        if info.Direction == WRITE:
            return self._writes(
                EmulatedAccess(True, WRITE, port, size, info.Data.to_bytes(4, "little")[:size])
            )
        data = self._replayed()
        if data is None:
            if not self._answers:
                return self._asks(
                    EmulatedAccess(True, READ, port, size, count=self._values_per_exit(size))
                )
            data = self._answered()
        info.Data = int.from_bytes(data, "little")
        return _DONE

    def _memory_access(self, address: int) -> int:
        info = WHV_EMULATOR_MEMORY_ACCESS_INFO.from_address(address)
        place, size = info.GpaAddress, info.AccessSize
        if info.Direction == WRITE:
            return self._writes(EmulatedAccess(False, WRITE, place, size, bytes(info.Data[:size])))
        data = self._replayed()
        if data is None:
            data = self._own(place, size)
            if data is None:
                if not self._answers:
                    return self._asks(EmulatedAccess(False, READ, place, size))
                data = self._answered()
            else:
                self._log += [data]
        info.Data[:size] = list(data)
        return _DONE

    def _replayed(self) -> bytes | None:
        """The next recorded access's data; None if the access is a new one."""
        at, self._played = self._played, self._played + 1
        return self._log[at] if at < len(self._log) else None

    def _answered(self) -> bytes:
        """Move the next answer to the record, and return it."""
        data = self._answers[0]
        self._log += [data]
        del self._answers[0]
        return data

    def _values_per_exit(self, size: int) -> int:
        """The number of values of a string that one exit reads from a port."""
        return 1 if self._single_step else min(self._left, MOST_AT_ONCE // size)

    def _asks(self, access: EmulatedAccess) -> int:
        self._bytes_returned += access.size * access.count
        self._unanswered = access
        return _ABORTED

    def _writes(self, access: EmulatedAccess) -> int:
        if self._replayed() is None:
            if not access.is_port and self._write_own(access):  # repeated after an interruption
                self._log += [access.data]
            else:
                self._bytes_returned += access.size
                self._written += [access]
                self._log += [access.data]
        return _DONE

    def _own(self, place: int, size: int) -> bytes | None:
        """Read guest memory or a device of the machine itself; None if the address is neither."""
        for region in self._memory.mapped_regions:
            if region.address <= place and place + size <= region.end:
                return self._memory.read(place, size)
        for addresses, device in self._devices.items():
            if place in addresses:
                value = device.read(place - addresses.start, size)
                return (value & (1 << 8 * size) - 1).to_bytes(size, "little")
        return None

    def _write_own(self, access: EmulatedAccess) -> bool:
        """Write guest memory or a device of the machine itself; False if the address is neither."""
        end = access.address + access.size
        for region in self._memory.mapped_regions:
            if region.address <= access.address and end <= region.end:
                if not region.read_only:
                    self._memory.write(access.address, access.data)
                    self._memory_written(access.address, access.size)
                return not region.read_only
        for addresses, device in self._devices.items():
            if access.address in addresses:
                value = int.from_bytes(access.data, "little")
                device.write(access.address - addresses.start, access.size, value)
                return True
        return False

    def _get_registers(self, names: int, count: int, values: int) -> int:
        # The emulator's own array may not be aligned as the platform requires.
        read = (WHV_REGISTER_VALUE * count)()
        self._registers.read_registers(names, count, read)
        ctypes.memmove(values, read, ctypes.sizeof(read))
        known = self._changed | self._fresh
        if self._mask and WHvX64RegisterRcx not in self._fresh:
            once = self._original_count & ~self._mask | 1
            known[WHvX64RegisterRcx] = once.to_bytes(16, "little")
        for i, name in enumerate((ctypes.c_uint32 * count).from_address(names)):
            if name in known:
                ctypes.memmove(values + 16 * i, known[name], 16)
        return _DONE

    def _set_registers(self, names: int, count: int, values: int) -> int:
        for i, name in enumerate((ctypes.c_uint32 * count).from_address(names)):
            self._fresh[name] = ctypes.string_at(values + 16 * i, 16)
        return _DONE

    def _translate(self, address: int, flags: int, result: int, physical: int) -> int:
        self._registers.translate_page(address, flags, result, physical)
        return _DONE


def _status(status: WHV_EMULATOR_STATUS) -> str:
    reasons = (name for name, *_ in WHV_EMULATOR_STATUS_struct._fields_ if getattr(status, name))
    return ", ".join(reasons) or "WinHvEmulation gave no reason"
