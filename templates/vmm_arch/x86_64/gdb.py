"""The x86_64 part of debugging with gdb: see :class:`vmm_arch.debug.cpu.Cpu`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Protocol

from vmm_arch.breakpoint import HardwareBreakpoint, On
from vmm_arch.x86_64 import debug
from vmm_arch.x86_64 import dump as dumps
from vmm_arch.x86_64.address_space import AddressSpace
from vmm_arch.x86_64.breakpoints import Breakpoints

HARDWARE_BREAKPOINTS: Final = debug.MOST
_EFER_LMA: Final = 1 << 10
_LEGACY: Final = ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp")
_SEGMENTS: Final = ("cs", "ss", "ds", "es", "fs", "gs")
_FPU_CONTROL: Final = ("fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop")
_CONTROL: Final = ("cr0", "cr2", "cr3", "cr4", "cr8", "efer")
_EMPTY: Final = 0b11
"""The tag of an x87 register in the full tag word; all others mean that it has a value."""


@dataclass(slots=True)
class _State:
    """What a vCPU's registers are in."""

    regs: Any
    sregs: Any
    fpu: Any


class _Register(Protocol):
    """A register of gdb's: where it is."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def type(self) -> str: ...
    def read(self, state: _State) -> bytes: ...
    def write(self, state: _State, value: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class _Number:
    """A register that is an attribute of a record."""

    name: str
    size: int
    type: str
    record: str
    attribute: str

    def read(self, state: _State) -> bytes:
        value: int = getattr(getattr(state, self.record), self.attribute)
        return (value & (1 << 8 * self.size) - 1).to_bytes(self.size, "little")

    def write(self, state: _State, value: bytes) -> None:
        setattr(getattr(state, self.record), self.attribute, int.from_bytes(value, "little"))


@dataclass(frozen=True, slots=True)
class _Selector:
    """A segment register, of which gdb knows the selector only."""

    name: str
    size: int = 4
    type: str = "int32"

    def read(self, state: _State) -> bytes:
        selector: int = getattr(state.sregs, self.name).selector
        return selector.to_bytes(self.size, "little")

    def write(self, state: _State, value: bytes) -> None:
        if value != self.read(state):
            raise ValueError(f"{self.name} cannot be set: its base and limit are not known here")


@dataclass(frozen=True, slots=True)
class _Base:
    """The base of FS or GS."""

    name: str
    segment: str
    size: int = 8
    type: str = "int"

    def read(self, state: _State) -> bytes:
        base: int = getattr(state.sregs, self.segment).base
        return base.to_bytes(self.size, "little")

    def write(self, state: _State, value: bytes) -> None:
        getattr(state.sregs, self.segment).base = int.from_bytes(value, "little")


@dataclass(frozen=True, slots=True)
class _Bytes:
    """A register of the FPU that is an element of an array."""

    name: str
    size: int
    type: str
    array: str
    index: int

    def read(self, state: _State) -> bytes:
        return bytes(getattr(state.fpu, self.array)[self.index])[: self.size]

    def write(self, state: _State, value: bytes) -> None:
        getattr(state.fpu, self.array)[self.index][: self.size] = value


@dataclass(frozen=True, slots=True)
class _FpuControl:
    """A control register of the x87, which gdb has as FSAVE stores it (Intel SDM volume 1, 8.1)."""

    name: str
    size: int = 4
    type: str = "int"

    def read(self, state: _State) -> bytes:
        return self._value(state.fpu).to_bytes(self.size, "little")

    def write(self, state: _State, value: bytes) -> None:
        wanted = int.from_bytes(value, "little")
        fpu = state.fpu
        match self.name:
            case "fctrl":
                fpu.fcw = wanted & 0xFFFF
            case "fstat":
                fpu.fsw = wanted & 0xFFFF
            case "ftag":
                tags = [wanted >> 2 * index & _EMPTY for index in range(8)]
                fpu.ftw = sum(1 << index for index, tag in enumerate(tags) if tag != _EMPTY)
            case "fiseg":
                fpu.fip = fpu.fip & 0xFFFF_FFFF | (wanted & 0xFFFF) << 32
            case "fioff":
                fpu.fip = fpu.fip & ~0xFFFF_FFFF | wanted
            case "foseg":
                fpu.fdp = fpu.fdp & 0xFFFF_FFFF | (wanted & 0xFFFF) << 32
            case "fooff":
                fpu.fdp = fpu.fdp & ~0xFFFF_FFFF | wanted
            case "fop":
                fpu.fop = wanted & 0xFFFF

    def _value(self, fpu: Any) -> int:
        match self.name:
            case "fctrl":
                value = fpu.fcw
            case "fstat":
                value = fpu.fsw
            case "ftag":
                value = sum(
                    (0 if fpu.ftw >> index & 1 else _EMPTY) << 2 * index for index in range(8)
                )
            case "fiseg":
                value = fpu.fip >> 32 & 0xFFFF
            case "fioff":
                value = fpu.fip & 0xFFFF_FFFF
            case "foseg":
                value = fpu.fdp >> 32 & 0xFFFF
            case "fooff":
                value = fpu.fdp & 0xFFFF_FFFF
            case _:
                value = fpu.fop
        return int(value)


_Features = Mapping[str, Sequence[_Register]]


class Architecture:
    """The registers by gdb's numbers: those of its features, one after the other."""

    def __init__(self, name: str, features: _Features) -> None:
        """``name`` is gdb's."""
        self.name = name
        self._features = features
        self._registers = [register for group in features.values() for register in group]

    @cached_property
    def sizes(self) -> Sequence[int]:
        """The size of each register in bytes."""
        return [register.size for register in self._registers]

    @cached_property
    def description(self) -> str:
        """The target description."""
        return "\n".join(self._description())

    def read(self, vcpu: Any) -> list[bytes]:
        """Read all registers."""
        state = _State(vcpu.get_regs(), vcpu.get_sregs(), vcpu.get_fpu())
        return [register.read(state) for register in self._registers]

    def write(self, vcpu: Any, values: Mapping[int, bytes]) -> None:
        """Write some registers; nothing is written if one of them cannot be."""
        state = _State(vcpu.get_regs(), vcpu.get_sregs(), vcpu.get_fpu())
        before = _State(*(bytes(part) for part in (state.regs, state.sregs, state.fpu)))
        for number, value in values.items():
            self._registers[number].write(state, value)
        # Only what changed: a hypervisor may refuse to take back, say, segments that it gave.
        if bytes(state.sregs) != before.sregs:
            vcpu.set_sregs(state.sregs)
        if bytes(state.regs) != before.regs:
            vcpu.set_regs(state.regs)
        if bytes(state.fpu) != before.fpu:
            vcpu.set_fpu(state.fpu)

    def _description(self) -> Iterator[str]:
        yield '<?xml version="1.0"?>'
        yield '<!DOCTYPE target SYSTEM "gdb-target.dtd">'
        yield f"<target><architecture>{self.name}</architecture>"
        number = 0
        for feature, registers in self._features.items():
            yield f'<feature name="{feature}">'
            yield from _TYPES.get(feature, ())
            for register in registers:
                yield (
                    f'<reg name="{register.name}" bitsize="{8 * register.size}"'
                    f' type="{register.type}" regnum="{number}"/>'
                )
                number += 1
            yield "</feature>"
        yield "</target>"


def _features(*, wide: bool) -> _Features:
    size = 8 if wide else 4
    prefix, vectors = ("r", 16) if wide else ("e", 8)
    core: list[_Register] = []
    order = _LEGACY if wide else ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")
    pointers = ("bp", "sp")
    for name in order:
        kind = "data_ptr" if name in pointers else f"int{8 * size}"
        core.append(_Number(prefix + name, size, kind, "regs", f"r{name}"))
    if wide:
        core += (_Number(f"r{n}", 8, "int64", "regs", f"r{n}") for n in range(8, 16))
    core.append(_Number(f"{prefix}ip", size, "code_ptr", "regs", "rip"))
    core.append(_Number("eflags", 4, "i386_eflags", "regs", "rflags"))
    core += map(_Selector, _SEGMENTS)
    core += (_Bytes(f"st{n}", 10, "i387_ext", "st", n) for n in range(8))
    core += map(_FpuControl, _FPU_CONTROL)
    sse: list[_Register] = [_Bytes(f"xmm{n}", 16, "vec128", "xmm", n) for n in range(vectors)]
    sse.append(_Number("mxcsr", 4, "i386_mxcsr", "fpu", "mxcsr"))
    control: list[_Register] = [_Number(name, 8, "int64", "sregs", name) for name in _CONTROL]
    features = {"org.gnu.gdb.i386.core": core, "org.gnu.gdb.i386.sse": sse}
    if wide:
        features["org.gnu.gdb.i386.segments"] = [_Base("fs_base", "fs"), _Base("gs_base", "gs")]
    return features | {"vmm-arch.x86_64.control": control}


def _flags(name: str, bits: Mapping[str, int]) -> Iterator[str]:
    yield f'<flags id="{name}" size="4">'
    yield from (f'<field name="{bit}" start="{at}" end="{at}"/>' for bit, at in bits.items())
    yield "</flags>"


_EFLAGS: Final = (
    {"CF": 0, "PF": 2, "AF": 4, "ZF": 6, "SF": 7, "TF": 8, "IF": 9, "DF": 10, "OF": 11}
    | {"NT": 14, "RF": 16, "VM": 17, "AC": 18, "VIF": 19, "VIP": 20, "ID": 21}
)  # fmt: skip
_MXCSR: Final = (
    {"IE": 0, "DE": 1, "ZE": 2, "OE": 3, "UE": 4, "PE": 5, "DAZ": 6}
    | {"IM": 7, "DM": 8, "ZM": 9, "OM": 10, "UM": 11, "PM": 12, "FZ": 15}
)  # fmt: skip
_TYPES: Final[Mapping[str, Sequence[str]]] = {
    "org.gnu.gdb.i386.core": [*_flags("i386_eflags", _EFLAGS)],
    "org.gnu.gdb.i386.sse": [
        '<vector id="v4f" type="ieee_single" count="4"/>',
        '<vector id="v2d" type="ieee_double" count="2"/>',
        '<vector id="v16i8" type="int8" count="16"/>',
        '<vector id="v8i16" type="int16" count="8"/>',
        '<vector id="v4i32" type="int32" count="4"/>',
        '<vector id="v2i64" type="int64" count="2"/>',
        '<union id="vec128"><field name="v4_float" type="v4f"/><field name="v2_double" type="v2d"/>'
        '<field name="v16_int8" type="v16i8"/><field name="v8_int16" type="v8i16"/>'
        '<field name="v4_int32" type="v4i32"/><field name="v2_int64" type="v2i64"/>'
        '<field name="uint128" type="uint128"/></union>',
        *_flags("i386_mxcsr", _MXCSR),
    ],
}
"""The types of a feature's registers."""
X86_64: Final = Architecture("i386:x86-64", _features(wide=True))
I386: Final = Architecture("i386", _features(wide=False))
ARCHITECTURES: Final = {"x86-64": X86_64, "i386": I386}


def architecture(name: str | None, vcpu: Any) -> Architecture:
    """gdb's architecture of a name, or the one for a vCPU's mode: i386 outside long mode."""
    if name is None:
        return X86_64 if vcpu.get_sregs().efer & _EFER_LMA else I386
    if name not in ARCHITECTURES:
        raise ValueError(f"architecture {name!r}: there are {' and '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]


def watched(address: int, size: int, on: On) -> list[HardwareBreakpoint]:
    """The hardware breakpoints that watch an interval together: aligned pieces of 1 to 8 bytes."""
    found = []
    end = address + size
    while address < end:
        part = next(n for n in (8, 4, 2, 1) if address % n == 0 and n <= end - address)
        found.append(HardwareBreakpoint(address, on, part))
        address += part
    return found


def go_to(vcpu: Any, address: int) -> None:
    """Set RIP."""
    regs = vcpu.get_regs()
    regs.rip = address
    vcpu.set_regs(regs)


address_space = AddressSpace.of
software_breakpoints = Breakpoints
dump = dumps.dump
