"""The registers of a WHP vCPU on x86_64: as arrays of names and values, and as records over those.

A value takes 16 bytes (``WHV_REGISTER_VALUE``). ``Regs``, ``Sregs`` and ``Fpu`` are the contiguous
values that a call reads or writes, with the contract's names as members.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ctypes import Array, c_uint8, c_uint32
from typing import Final

from vmm_arch.abi import whp_x86_64 as abi
from vmm_arch.abi.records import LittleStruct, bit_field, of, u8, u16, u32, u64
from vmm_arch.abi.whp_x86_64 import WHV_REGISTER_VALUE, WHV_X64_SEGMENT_REGISTER
from vmm_arch.x86_64 import msr
from vmm_arch.x86_64.fpu import FxsaveRegisters

VALUE_SIZE: Final = 16
"""The size of a register's value in bytes."""


def names_array(names: Sequence[int]) -> Array[c_uint32]:
    """Make the array of names that the calls take."""
    return (c_uint32 * len(names))(*names)


class RegisterImage:
    """Registers with their values: the arguments of WHvSetVirtualProcessorRegisters."""

    __slots__ = ("_at", "_parts", "names", "values")
    _at: dict[int, int]
    _parts: dict[frozenset[int], tuple[RegisterImage, list[slice]]]
    """Cache of without(), shared by images of the same registers."""

    def __init__(self, registers: Mapping[int, int | WHV_REGISTER_VALUE]) -> None:
        self.names = names_array(list(registers))
        self.values = (WHV_REGISTER_VALUE * len(registers))()
        self._at = {name: i for i, name in enumerate(registers)}
        self._parts = {}
        for i, value in enumerate(registers.values()):
            if isinstance(value, int):
                self.values[i].Reg64 = value
            else:
                self.values[i] = value

    @classmethod
    def from_buffer_copy(cls, image: RegisterImage) -> RegisterImage:
        """Copy the values; the names never change."""
        copy = cls.__new__(cls)
        copy.names = image.names
        copy.values = type(image.values).from_buffer_copy(image.values)
        copy._at, copy._parts = image._at, image._parts
        return copy

    def __reduce__(self) -> tuple[object, ...]:
        """Support for copying and pickling."""
        return _image_of, (list(self.names), bytes(self.values))

    def __or__(self, other: RegisterImage) -> RegisterImage:
        """An image with the registers of both."""
        return RegisterImage({name: image[name] for image in (self, other) for name in image._at})

    def __len__(self) -> int:
        return len(self._at)

    def __contains__(self, name: int) -> bool:
        return name in self._at

    def __getitem__(self, name: int) -> WHV_REGISTER_VALUE:
        """A view of a register's value."""
        return self.values[self._at[name]]

    def __setitem__(self, name: int, value: int) -> None:
        self.values[self._at[name]].Reg64 = value

    def without(self, names: frozenset[int]) -> RegisterImage:
        """A copy without some of the registers."""
        if names not in self._parts:
            left = [name for name in self._at if name not in names]
            runs = _runs([self._at[name] for name in left])
            self._parts[names] = RegisterImage(dict.fromkeys(left, 0)), runs
        like, runs = self._parts[names]
        values = memoryview(self.values).cast("B")
        rest = RegisterImage.__new__(RegisterImage)
        rest.names, rest._at, rest._parts = like.names, like._at, like._parts
        rest.values = type(like.values).from_buffer_copy(b"".join([values[run] for run in runs]))
        return rest


def _image_of(names: Sequence[int], values: bytes) -> RegisterImage:
    image = RegisterImage(dict.fromkeys(names, 0))
    image.values = type(image.values).from_buffer_copy(values)
    return image


def _runs(places: Sequence[int]) -> list[slice]:
    """The values at some places as byte slices, adjacent ones joined."""
    runs: list[slice] = []
    for place in places:
        begin, end = place * VALUE_SIZE, (place + 1) * VALUE_SIZE
        if runs and runs[-1].stop == begin:
            runs[-1] = slice(runs[-1].start, end)
        else:
            runs.append(slice(begin, end))
    return runs


def segment_image(selector: int, base: int, limit: int, attributes: int) -> WHV_REGISTER_VALUE:
    """Make a segment's value; the attributes are a descriptor's flag word (SDM volume 3, 3.4.5)."""
    segment = WHV_X64_SEGMENT_REGISTER(
        Base=base, Limit=limit, Selector=selector, Attributes=attributes
    )
    return WHV_REGISTER_VALUE(Segment=segment)


class Segment(LittleStruct):
    """WHV_X64_SEGMENT_REGISTER with the contract's member names."""

    base: int = u64
    limit: int = u32
    selector: int = u16
    type: int = bit_field(u16, 4)
    s: int = bit_field(u16, 1)
    dpl: int = bit_field(u16, 2)
    present: int = bit_field(u16, 1)
    _bits_0: int = bit_field(u16, 4)
    avl: int = bit_field(u16, 1)
    l: int = bit_field(u16, 1)  # noqa: E741 - the field's name
    db: int = bit_field(u16, 1)
    g: int = bit_field(u16, 1)


class Table(LittleStruct):
    """WHV_X64_TABLE_REGISTER with the contract's member names."""

    _pad_0: Array[c_uint8] = u8 * 6
    limit: int = u16
    base: int = u64


class Regs(LittleStruct):
    """The general registers."""

    _align_ = 16
    rax: int = u64
    _pad_0: int = u64
    rbx: int = u64
    _pad_1: int = u64
    rcx: int = u64
    _pad_2: int = u64
    rdx: int = u64
    _pad_3: int = u64
    rsi: int = u64
    _pad_4: int = u64
    rdi: int = u64
    _pad_5: int = u64
    rsp: int = u64
    _pad_6: int = u64
    rbp: int = u64
    _pad_7: int = u64
    r8: int = u64
    _pad_8: int = u64
    r9: int = u64
    _pad_9: int = u64
    r10: int = u64
    _pad_10: int = u64
    r11: int = u64
    _pad_11: int = u64
    r12: int = u64
    _pad_12: int = u64
    r13: int = u64
    _pad_13: int = u64
    r14: int = u64
    _pad_14: int = u64
    r15: int = u64
    _pad_15: int = u64
    rip: int = u64
    _pad_16: int = u64
    rflags: int = u64
    _pad_17: int = u64


class Sregs(LittleStruct):
    """Segments, descriptor tables and control registers. Each segment is a view, not a copy."""

    _align_ = 16
    cs: Segment = of(Segment)
    ds: Segment = of(Segment)
    es: Segment = of(Segment)
    fs: Segment = of(Segment)
    gs: Segment = of(Segment)
    ss: Segment = of(Segment)
    tr: Segment = of(Segment)
    ldt: Segment = of(Segment)
    gdt: Table = of(Table)
    idt: Table = of(Table)
    cr0: int = u64
    _pad_0: int = u64
    cr2: int = u64
    _pad_1: int = u64
    cr3: int = u64
    _pad_2: int = u64
    cr4: int = u64
    _pad_3: int = u64
    cr8: int = u64
    _pad_4: int = u64
    efer: int = u64
    _pad_5: int = u64
    apic_base: int = u64
    _pad_6: int = u64


class Fpu(FxsaveRegisters):
    """x87 and SSE state: FpControlStatus, XmmControlStatus and the data registers, in that order."""

    _align_ = 16


class ApicState(LittleStruct):
    """The local APIC's page, as WHvGetVirtualProcessorInterruptControllerState2 gives it."""

    regs: Array[c_uint8] = u8 * 0x1000


def _register_names(*names: str) -> Array[c_uint32]:
    return names_array([getattr(abi, f"WHvX64Register{name.capitalize()}") for name in names])


REGS: Final = _register_names(
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip", "rflags"),
)
SREGS: Final = names_array(
    [
        *_register_names("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldtr", "gdtr", "idtr"),
        *_register_names("cr0", "cr2", "cr3", "cr4", "cr8", "efer"),
        abi.WHvX64RegisterApicBase,
    ]
)
FPU: Final = names_array(
    [
        abi.WHvX64RegisterFpControlStatus,
        abi.WHvX64RegisterXmmControlStatus,
        *range(abi.WHvX64RegisterFpMmx0, abi.WHvX64RegisterFpMmx0 + 8),
        *range(abi.WHvX64RegisterXmm0, abi.WHvX64RegisterXmm0 + 16),
    ]
)

MSRS: Final[Mapping[int, int]] = {
    msr.IA32_TSC: abi.WHvX64RegisterTsc,
    msr.IA32_APIC_BASE: abi.WHvX64RegisterApicBase,
    msr.IA32_TSC_ADJUST: abi.WHvX64RegisterTscAdjust,
    msr.IA32_SPEC_CTRL: abi.WHvX64RegisterSpecCtrl,
    msr.IA32_MTRRCAP: abi.WHvX64RegisterMsrMtrrCap,
    msr.IA32_TSX_CTRL: abi.WHvX64RegisterTsxCtrl,
    msr.IA32_SYSENTER_CS: abi.WHvX64RegisterSysenterCs,
    msr.IA32_SYSENTER_ESP: abi.WHvX64RegisterSysenterEsp,
    msr.IA32_SYSENTER_EIP: abi.WHvX64RegisterSysenterEip,
    msr.IA32_MISC_ENABLE: abi.WHvX64RegisterMsrIa32MiscEnable,
    **{msr.IA32_MTRR_PHYSBASE0 + 2 * i: abi.WHvX64RegisterMsrMtrrPhysBase0 + i for i in range(16)},
    **{
        msr.IA32_MTRR_PHYSBASE0 + 2 * i + 1: abi.WHvX64RegisterMsrMtrrPhysMask0 + i
        for i in range(16)
    },
    **{
        index: abi.WHvX64RegisterMsrMtrrFix64k00000 + i
        for i, index in enumerate(msr.IA32_MTRR_FIXED)
    },
    msr.IA32_PAT: abi.WHvX64RegisterPat,
    msr.IA32_MTRR_DEF_TYPE: abi.WHvX64RegisterMsrMtrrDefType,
    msr.IA32_TSC_DEADLINE: abi.WHvX64RegisterTscDeadline,
    msr.IA32_XSS: abi.WHvX64RegisterXss,
    msr.IA32_EFER: abi.WHvX64RegisterEfer,
    msr.IA32_STAR: abi.WHvX64RegisterStar,
    msr.IA32_LSTAR: abi.WHvX64RegisterLstar,
    msr.IA32_CSTAR: abi.WHvX64RegisterCstar,
    msr.IA32_FMASK: abi.WHvX64RegisterSfmask,
    msr.IA32_FS_BASE: abi.WHvX64RegisterFs,
    msr.IA32_GS_BASE: abi.WHvX64RegisterGs,
    msr.IA32_KERNEL_GS_BASE: abi.WHvX64RegisterKernelGsBase,
    msr.IA32_TSC_AUX: abi.WHvX64RegisterTscAux,
}
"""By MSR index, the register whose value, or the lower half of it, is that MSR."""

SEGMENTS: Final = frozenset({abi.WHvX64RegisterFs, abi.WHvX64RegisterGs})
"""Those of them whose value has more than the MSR."""

LAPIC: Final[Mapping[int, int]] = {
    0x10 * (name - abi.WHvX64RegisterApicId + 2): name
    for name in range(abi.WHvX64RegisterApicId, abi.WHvX64RegisterApicSelfIpi + 1)
}
"""The local APIC's registers by their offset in its page."""

WIDE: Final = frozenset(
    {
        *range(abi.WHvX64RegisterXmm0, abi.WHvX64RegisterXmm0 + 16),
        *range(abi.WHvX64RegisterFpMmx0, abi.WHvX64RegisterFpMmx0 + 8),
        abi.WHvRegisterPendingEvent,
        abi.WHvRegisterPendingEvent1,
        abi.WHvRegisterPendingEvent2,
        abi.WHvRegisterPendingEvent3,
    }
)
"""The registers of more than 64 bits, apart from those of several members."""

OPTIONAL: Final = frozenset(
    {
        abi.WHvX64RegisterMsrIa32MiscEnable,
        abi.WHvX64RegisterTscAux,
        abi.WHvX64RegisterXCr0,
        abi.WHvRegisterPendingEvent,
        abi.WHvX64RegisterPendingDebugException,
        *(LAPIC[offset] for offset in (0x80, 0xD0, 0xF0, *range(0x320, 0x380, 0x10))),
    }
)
"""Optional registers: older hosts, or those without a feature, do not have them.

Of the local APIC's, the settable ones: TPR, LDR, SVR and the local vector table."""
