"""Unicorn: QEMU's interpreter as a library, which this project had no part in.

It delivers no interrupts and exceptions: it says which, and :func:`deliver` does what the manual
says (Intel SDM volume 3, 6.12 and 6.14; volume 1, 6.5). It says no error code,
which therefore is nothing to compare.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Mapping
from typing import Any

from unicorn import unicorn_const, x86_const
from unicorn.unicorn_py3.unicorn import Uc, UcError, uclib

from differential.executors import (
    REGISTERS,
    SEGMENTS,
    Access,
    Elements,
    Step,
    answer,
    device_answer,
    is_repeated,
)
from differential.guests import HLT, MEMORY, MODES, PAGE, Guest, image_of, start_of

_MODE = {
    "real": unicorn_const.UC_MODE_16,
    "protected": unicorn_const.UC_MODE_32,
    "long": unicorn_const.UC_MODE_64,
}
_DEVICES, _END = 0x10_0000, 1 << 32
_CLEARED = {"real": 0x4_0300, "protected": 0x3_4300, "long": 0x3_4300}
"""IF and TF; AC in real mode, and in others NT, RF and VM."""
_RESUME = 1 << 16
_FAULTS = frozenset({0, 5, 6, 7, 10, 11, 12, 13, 14, 16, 17, 19})
_WITH_ERROR_CODE = frozenset({8, 10, 11, 12, 13, 14, 17})
_INVALID_OPCODE = 6


def _constant(name: str) -> int:
    return int(getattr(x86_const, f"UC_X86_REG_{name}"))


_NEVER = MEMORY - 1
"""Where guests do not get: unicorn stops there, and touches it in advance."""
_SPECIAL = ("cr0", "cr2", "cr3", "cr4", "cr8")
_DEBUG = ("dr0", "dr1", "dr2", "dr3", "dr6", "dr7")
_XMM = tuple(f"xmm{number}" for number in range(16))
_ST = tuple(f"st{number}" for number in range(8))
_WIDE = {
    **{name: _constant(name.upper()) for name in (*REGISTERS, *_SPECIAL, *_DEBUG, *_XMM, *_ST)},
    **{f"{name}.selector": _constant(name.upper()) for name in SEGMENTS[:6]},
    "mxcsr": _constant("MXCSR"),
    "fcw": _constant("FPCW"),
    "fsw": _constant("FPSW"),
}
_NARROW = (*REGISTERS[:8], *REGISTERS[-2:])
_CONSTANTS = {
    mode: (
        _WIDE
        if mode == "long"
        else _WIDE | {name: _constant(f"E{name.upper()[1:]}") for name in _NARROW}
    )
    for mode in MODES
}
_READ = {
    mode: (
        *(REGISTERS if mode == "long" else _NARROW),
        *(f"{name}.selector" for name in SEGMENTS[:6]),
        *_SPECIAL[:4],
        *_DEBUG[:4],
        *(_XMM if mode == "long" else _XMM[:8]),
        *("mxcsr", "fcw", "fsw"),
    )
    for mode in MODES
}


class _Batch:
    """Reads registers at once, in a third of the time that unicorn's own Python takes."""

    def __init__(self, names: tuple[str, ...], constants: Mapping[str, int]) -> None:
        count = len(names)
        self._narrow = tuple(name for name in names if name not in _XMM)
        self._wide = tuple(name for name in names if name in _XMM)
        self._numbers = (ctypes.c_int * count)(
            *(constants[name] for name in (*self._narrow, *self._wide))
        )
        self._values = (ctypes.c_uint64 * (2 * count))()
        at = ctypes.addressof(self._values)
        self._places = (ctypes.c_void_p * count)(*(at + 16 * index for index in range(count)))

    def read(self, uc: Any) -> Elements:
        ctypes.memset(self._values, 0, ctypes.sizeof(self._values))
        failed = uclib.uc_reg_read_batch(uc._uch, self._numbers, self._places, len(self._numbers))
        if failed:
            raise UcError(failed)
        values = list(self._values)
        found = dict(zip(self._narrow, values[::2], strict=False))
        lows = values[2 * len(self._narrow) :: 2]
        highs = values[2 * len(self._narrow) + 1 :: 2]
        for name, low, high in zip(self._wide, lows, highs, strict=True):
            found[name] = low | high << 64
        return found


class UnicornExecutor:
    """One of unicorn's engines for each mode."""

    name = "unicorn"

    def __init__(self) -> None:
        self._images = {mode: image_of(mode) for mode in MODES}
        self._engines: dict[str, tuple[Any, Any]] = {}
        self._written: dict[str, set[int]] = {mode: set() for mode in MODES}
        self._batches = {mode: _Batch(_READ[mode], _CONSTANTS[mode]) for mode in MODES}
        self._mode = ""
        self._step = Step()

    def close(self) -> None:
        pass

    def start(self, guest: Guest) -> None:
        self._mode = guest.mode
        self._constants = _CONSTANTS[guest.mode]
        mode = guest.mode
        if mode not in self._engines:
            self._engines[mode] = self._made(mode)
        self._uc, first = self._engines[mode]
        self._uc.context_restore(first)
        image, written = self._images[mode], self._written[mode]
        pages = guest.pages(image)
        for page in written - pages.keys():
            self.write(page, image[page : page + PAGE])
        written.clear()
        for page, data in pages.items():
            self.write(page, data)
        start = {"rip": guest.entry.address, "rsp": guest.entry.rsp, "rflags": 2}
        start |= {"rbp": guest.entry.rsp, "fcw": 0x37F, "mxcsr": 0x1F80}
        registers = {name: 0 for name in REGISTERS if name in _READ[mode]}
        self.adopt({**registers, **start, **guest.registers})

    def _made(self, mode: str) -> tuple[Any, Any]:
        """An engine, and what its registers are at the beginning."""
        uc: Any = Uc(unicorn_const.UC_ARCH_X86, _MODE[mode])
        uc.mem_map(0, MEMORY)
        uc.mem_write(0, self._images[mode])
        uc.mmio_map(_DEVICES, _END - _DEVICES, self._device_read, None, self._device_written, None)
        uc.hook_add(unicorn_const.UC_HOOK_CODE, self._next)
        uc.hook_add(unicorn_const.UC_HOOK_INTR, self._raised)
        uc.hook_add(unicorn_const.UC_HOOK_INSN_INVALID, self._invalid)
        uc.hook_add(unicorn_const.UC_HOOK_MEM_WRITE, self._wrote)
        for hook, instruction in (
            (self._port_read, x86_const.UC_X86_INS_IN),
            (self._port_written, x86_const.UC_X86_INS_OUT),
        ):
            uc.hook_add(unicorn_const.UC_HOOK_INSN, hook, None, 1, 0, instruction)
        self._set_tables(uc, mode, start_of(mode))
        return uc, uc.context_save()

    def _set_tables(self, uc: Any, mode: str, start: Mapping[str, int]) -> None:
        write = uc.reg_write
        write(x86_const.UC_X86_REG_IDTR, (0, start["idt.base"], start["idt.limit"], 0))
        if mode == "real":
            write(x86_const.UC_X86_REG_CR0, 0x10)
            write(x86_const.UC_X86_REG_GDTR, (0, 0, 0xFFFF, 0))
            write(x86_const.UC_X86_REG_CR4, start["cr4"])
            return
        write(x86_const.UC_X86_REG_GDTR, (0, 0x500, 0x2F, 0))
        write(x86_const.UC_X86_REG_CR4, start["cr4"])
        if mode == "long":
            write(x86_const.UC_X86_REG_CR3, 0x9000)
            write(x86_const.UC_X86_REG_MSR, (0xC0000080, 0x500))
            write(x86_const.UC_X86_REG_CR0, 0x80000033)
        else:
            write(x86_const.UC_X86_REG_CR0, 0x11)
        write(x86_const.UC_X86_REG_LDTR, (0, 0, 0xFFFF, 0x8200))
        for name in SEGMENTS[:6]:
            selector = 0x10 if name == "cs" else 0x18
            write(_WIDE[f"{name}.selector"], selector)

    # What unicorn calls

    def _next(self, uc: Any, address: int, size: int, data: object) -> None:
        if self._begun and not (address == self._begun_at and self._repeated):
            uc.emu_stop()
        self._begun = True

    def _raised(self, uc: Any, vector: int, data: object) -> None:
        self._step.exception = vector
        uc.emu_stop()

    def _invalid(self, uc: Any, data: object) -> bool:
        self._step.exception = _INVALID_OPCODE
        return False

    def _wrote(self, uc: Any, kind: int, address: int, size: int, value: int, data: object) -> None:
        for place in (address, address + size - 1):
            if place < MEMORY:
                self._step.pages.add(place & -PAGE)

    def _access(self, kind: str, place: int, size: int, value: int) -> None:
        access: Access = (kind, place, size, value & (1 << 8 * size) - 1)
        self._step.accesses.append(access)

    def _port_read(self, uc: Any, port: int, size: int, data: object) -> int:
        value = answer(port, size)
        self._access("in", port, size, value)
        return value

    def _port_written(self, uc: Any, port: int, size: int, value: int, data: object) -> None:
        self._access("out", port, size, value)

    def _device_read(self, uc: Any, offset: int, size: int, data: object) -> int:
        value = device_answer(_DEVICES + offset, size)
        self._access("read", _DEVICES + offset, size, value)
        return value

    def _device_written(self, uc: Any, offset: int, size: int, value: int, data: object) -> None:
        self._access("write", _DEVICES + offset, size, value)

    # Executor

    _begun = False
    _begun_at = 0
    _repeated = False

    def _register(self, name: str) -> int:
        return int(self._uc.reg_read(self._constants[name]))

    def _linear(self) -> int:
        position = self._register("rip")
        if self._mode == "real":
            position += self._register("cs.selector") << 4
        return position

    def step(self, following: int | None) -> Step:
        self._step = step = Step()
        self._begun = False
        self._begun_at = self._linear()
        before = self._register("rip")
        code = self.read(self._begun_at, 8) if self._begun_at < MEMORY - 8 else b""
        if code[:1] == bytes([HLT]):
            step.ended = "halt"
            return step
        self._repeated = is_repeated(code, self._mode)
        try:
            self._uc.emu_start(self._begun_at, _NEVER)
        except UcError as error:
            if step.exception is None:
                step.ended = f"cannot: {error}"
        if step.exception is not None:
            self._deliver(step.exception, before)
        self._written[self._mode] |= step.pages
        return step

    def _deliver(self, vector: int, before: int) -> None:
        """Push where the guest was, and go on where the table says."""
        step = self._step
        rip, flags = self._register("rip"), self._register("rflags")
        if vector in _FAULTS:
            rip = before
            flags |= _RESUME if self._mode != "real" else 0
        cs, rsp = self._register("cs.selector"), self._register("rsp")
        error = struct.pack("<Q", 0) if vector in _WITH_ERROR_CODE else b""
        uc = self._uc
        base, limit = uc.reg_read(x86_const.UC_X86_REG_IDTR)[1:3]
        match self._mode:
            case "real":
                rsp = rsp & ~0xFFFF | rsp - 6 & 0xFFFF
                pushed = frame = struct.pack("<HHH", rip & 0xFFFF, cs, flags & 0xFFFF)
                target, segment = struct.unpack("<HH", self.read(base + 4 * vector, 4))
            case "protected":
                frame = struct.pack("<III", rip, cs, flags)
                pushed = error[:4] + frame
                rsp = rsp - len(pushed) & 0xFFFFFFFF
                low, segment, _, high = struct.unpack("<HHHH", self.read(base + 8 * vector, 8))
                target = high << 16 | low
            case _:
                frame = struct.pack("<QQQQQ", rip, cs, flags, rsp, self._register("ss.selector"))
                pushed = error + frame
                rsp = (rsp & -16) - len(pushed)
                low, segment, _, high = struct.unpack("<HHHH", self.read(base + 16 * vector, 8))
                target = high << 16 | low
        size = {"real": 4, "protected": 8, "long": 16}[self._mode]
        top = rsp + (self._register("ss.selector") << 4 if self._mode == "real" else 0)
        if size * vector + size - 1 > limit or not 0 <= top <= MEMORY - len(pushed):
            step.ended = "cannot: an exception in an exception"
            return
        self.write(top, pushed)
        step.pages |= {top & -PAGE, top + len(pushed) - 1 & -PAGE}
        if error and self._mode != "real":
            step.unknown = (top, len(pushed) - len(frame))
        if self._mode == "real":
            uc.reg_write(self._constants["cs.selector"], segment)
        self.adopt({"rsp": rsp, "rip": target, "rflags": flags & ~_CLEARED[self._mode]})

    def elements(self) -> Elements:
        return self._batches[self._mode].read(self._uc)

    def adopt(self, elements: Mapping[str, int]) -> None:
        known = _READ[self._mode]
        for name, value in elements.items():
            if name in known and self._register(name) != value:
                self._uc.reg_write(self._constants[name], value)

    def read(self, address: int, size: int) -> bytes:
        return bytes(self._uc.mem_read(address, size))

    def write(self, address: int, data: bytes) -> None:
        self._uc.mem_write(address, data)
        last = address + len(data) - 1
        self._written[self._mode].update((address & -PAGE, last & -PAGE))
        self._uc.ctl_remove_cache(address, address + len(data))
