"""The registers of a WHP vCPU on x86_64: as arrays of names and values, and as views of those.

A value takes 16 bytes (``WHV_REGISTER_VALUE``). ``Regs``, ``Sregs`` and ``Fpu`` are the values that
a call reads or writes, one behind the other, under the names that they have on every hypervisor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ctypes import Array, LittleEndianStructure, c_uint8, c_uint16, c_uint32, c_uint64
from typing import Any, Final

from vmm_arch.abi import whp_x86_64 as abi
from vmm_arch.abi.whp_x86_64 import WHV_REGISTER_VALUE, WHV_X64_SEGMENT_REGISTER
from vmm_arch.x86_64 import msr


def names_array(names: Sequence[int]) -> Array[c_uint32]:
    """Lay out names as the calls take them."""
    return (c_uint32 * len(names))(*names)


class RegisterImage:
    """Registers with their values: what WHvSetVirtualProcessorRegisters takes."""

    __slots__ = ("_at", "names", "values")

    def __init__(self, registers: Mapping[int, int | WHV_REGISTER_VALUE]) -> None:
        self.names = names_array(list(registers))
        self.values = (WHV_REGISTER_VALUE * len(registers))()
        self._at = {name: i for i, name in enumerate(registers)}
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
        copy._at = image._at
        return copy

    def __or__(self, other: RegisterImage) -> RegisterImage:
        """The registers of both."""
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
        """The same registers but for some."""
        return RegisterImage({n: self.values[at] for n, at in self._at.items() if n not in names})


def segment_image(selector: int, base: int, limit: int, attributes: int) -> WHV_REGISTER_VALUE:
    """Lay out a segment; the attributes are the flag word of a descriptor (SDM volume 3, 3.4.5)."""
    segment = WHV_X64_SEGMENT_REGISTER(
        Base=base, Limit=limit, Selector=selector, Attributes=attributes
    )
    return WHV_REGISTER_VALUE(Segment=segment)


class Segment(LittleEndianStructure):
    """WHV_X64_SEGMENT_REGISTER under the names that a segment's fields have everywhere."""

    __slots__ = ()
    base: int
    limit: int
    selector: int
    type: int
    s: int
    dpl: int
    present: int
    avl: int
    l: int  # noqa: E741 - the field's name
    db: int
    g: int
    _fields_ = [
        ("base", c_uint64),
        ("limit", c_uint32),
        ("selector", c_uint16),
        ("type", c_uint16, 4),
        ("s", c_uint16, 1),
        ("dpl", c_uint16, 2),
        ("present", c_uint16, 1),
        ("_reserved", c_uint16, 4),
        ("avl", c_uint16, 1),
        ("l", c_uint16, 1),
        ("db", c_uint16, 1),
        ("g", c_uint16, 1),
    ]


class Table(LittleEndianStructure):
    """WHV_X64_TABLE_REGISTER under the names that GDTR and IDTR have everywhere."""

    __slots__ = ()
    limit: int
    base: int
    _fields_ = [("_pad", c_uint8 * 6), ("limit", c_uint16), ("base", c_uint64)]


_GENERAL: Final = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip", "rflags"),
)
_SEGMENTS: Final = ("cs", "ds", "es", "fs", "gs", "ss", "tr")
_CONTROL: Final = ("cr0", "cr2", "cr3", "cr4", "cr8", "efer")


def _numbers(*names: str) -> Any:
    """Fields for registers of 64 bits, each in its 16 bytes."""
    return [pair for n in names for pair in ((n, c_uint64), (f"_{n}_high", c_uint64))]


def _register_names(*names: str) -> Array[c_uint32]:
    return names_array([getattr(abi, f"WHvX64Register{name.capitalize()}") for name in names])


class Regs(LittleEndianStructure):
    """The general registers."""

    __slots__ = ()
    rax: int
    rbx: int
    rcx: int
    rdx: int
    rsi: int
    rdi: int
    rsp: int
    rbp: int
    r8: int
    r9: int
    r10: int
    r11: int
    r12: int
    r13: int
    r14: int
    r15: int
    rip: int
    rflags: int
    _fields_ = _numbers(*_GENERAL)


REGS: Final = _register_names(*_GENERAL)


class Sregs(LittleEndianStructure):
    """Segments, descriptor tables and control registers. Each segment is a view, not a copy."""

    __slots__ = ()
    cs: Segment
    ds: Segment
    es: Segment
    fs: Segment
    gs: Segment
    ss: Segment
    tr: Segment
    ldt: Segment
    gdt: Table
    idt: Table
    cr0: int
    cr2: int
    cr3: int
    cr4: int
    cr8: int
    efer: int
    apic_base: int
    _fields_ = [
        *[(name, Segment) for name in (*_SEGMENTS, "ldt")],
        ("gdt", Table),
        ("idt", Table),
        *_numbers(*_CONTROL, "apic_base"),
    ]


SREGS: Final = names_array(
    [
        *_register_names(*_SEGMENTS),
        abi.WHvX64RegisterLdtr,
        abi.WHvX64RegisterGdtr,
        abi.WHvX64RegisterIdtr,
        *_register_names(*_CONTROL),
        abi.WHvX64RegisterApicBase,
    ]
)


class Fpu(LittleEndianStructure):
    """x87 and SSE state: the beginning of the FXSAVE area (Intel SDM volume 1, 10.5.1).

    The values of FpControlStatus, XmmControlStatus and the data registers make it up, in that order.
    """

    __slots__ = ()
    fcw: int
    fsw: int
    ftw: int
    """The abridged tag word: a bit for each register that is not empty."""
    fop: int
    fip: int
    fdp: int
    mxcsr: int
    mxcsr_mask: int
    st: Array[Array[c_uint8]]
    """The x87 registers, 10 bytes of each 16 in use."""
    xmm: Array[Array[c_uint8]]
    _fields_ = [
        ("fcw", c_uint16),
        ("fsw", c_uint16),
        ("ftw", c_uint8),
        ("_reserved", c_uint8),
        ("fop", c_uint16),
        ("fip", c_uint64),
        ("fdp", c_uint64),
        ("mxcsr", c_uint32),
        ("mxcsr_mask", c_uint32),
        ("st", c_uint8 * 16 * 8),
        ("xmm", c_uint8 * 16 * 16),
    ]


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
"""The registers whose value, or the lower half of it, is an MSR, by the MSR's index."""

SEGMENTS: Final = frozenset({abi.WHvX64RegisterFs, abi.WHvX64RegisterGs})
"""Those of them that have more than the MSR in their value."""

LAPIC: Final[Mapping[int, int]] = {
    0x10 * (name - abi.WHvX64RegisterApicId + 2): name
    for name in range(abi.WHvX64RegisterApicId, abi.WHvX64RegisterApicSelfIpi + 1)
}
"""The local APIC's registers by their offset in its page."""

OPTIONAL: Final = frozenset(
    {
        abi.WHvX64RegisterMsrIa32MiscEnable,
        abi.WHvX64RegisterTscAux,
        abi.WHvX64RegisterXCr0,
        abi.WHvRegisterPendingEvent,
        *(LAPIC[offset] for offset in (0x80, 0xD0, 0xF0, *range(0x320, 0x380, 0x10))),
    }
)
"""What older hosts, or those without the feature, do not have, and a machine can be without.

Of the local APIC's those that can be set: TPR, LDR, SVR and the local vector table."""
