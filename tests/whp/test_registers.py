"""Registers by name, and the state that comes in blocks: what is set is read."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest
from vmm_arch.abi import whp_x86_64 as abi

from whp.library import (
    HresultError,
    Partition,
    call,
    hresult,
    identity_tables,
    long_mode,
    segment,
    table,
)

UNKNOWN_NAME = 0x80370309
HV_INVALID_PARAMETER = 0xC0350005
INSUFFICIENT_BUFFER = 0x80370301


@pytest.fixture
def partition() -> Iterator[Partition]:
    apic = abi.WHvPartitionPropertyCodeLocalApicEmulationMode
    with Partition(properties=[(apic, ctypes.c_uint32(1))]) as partition:
        yield partition


def name(suffix: str) -> int:
    value = getattr(abi, f"WHvX64Register{suffix}")
    assert isinstance(value, int)
    return value


GENERAL = [
    "Rax",
    "Rcx",
    "Rdx",
    "Rbx",
    "Rsp",
    "Rbp",
    "Rsi",
    "Rdi",
    "R8",
    "R9",
    "R10",
    "R11",
    "R12",
    "R13",
    "R14",
    "R15",
    "Rip",
    "Dr0",
    "Dr1",
    "Dr2",
    "Dr3",
    "Cr2",
    "KernelGsBase",
    "SysenterEip",
    "SysenterEsp",
    "Star",
    "Lstar",
    "Cstar",
    "TscAux",
]
VALUES = {
    "Rflags": 0x246,
    "Cr3": 0x12000,
    "Cr4": 0x620,
    "Cr8": 5,
    "Dr6": 0xFFFF0FF1,
    "Dr7": 0x402,
    "XCr0": 3,
    "Efer": 1,
    "Pat": 0x0606060606060606,
    "SysenterCs": 8,
    "Sfmask": 0x47700,
    "MsrMtrrDefType": 0xC06,
    "MsrMtrrPhysBase0": 0xC0000000,
    "MsrMtrrPhysMask0": 0xFC0000800,
    "MsrMtrrFix64k00000": 0x0606060606060606,
    "MsrMtrrFix4kF8000": 0x0505050505050505,
    "ApicBase": 0xFEE00900,
}


@pytest.mark.parametrize("register", GENERAL)
def test_a_register_keeps_what_was_set(partition: Partition, register: str) -> None:
    value = (
        0x1234 if register in ("TscAux", "Cr2", *(f"Dr{n}" for n in range(4))) else 0x7FFF12345678
    )
    partition.set_registers({name(register): value})
    assert partition.register(name(register)) == value


@pytest.mark.parametrize("register", VALUES)
def test_a_register_with_fixed_bits_keeps_what_was_set(partition: Partition, register: str) -> None:
    partition.set_registers({name(register): VALUES[register]})
    assert partition.register(name(register)) == VALUES[register]


def test_all_registers_in_one_call(partition: Partition) -> None:
    values = {name(register): 0x1000 + n for n, register in enumerate(GENERAL)}
    partition.set_registers(dict(values))
    assert [value.Reg64 for value in partition.registers(*values)] == list(values.values())


@pytest.mark.parametrize("register", ["Cs", "Ds", "Es", "Ss", "Fs", "Gs"])
def test_segments_keep_selector_base_limit_and_attributes(
    partition: Partition, register: str
) -> None:
    kind = 0xC09B if register == "Cs" else 0xC093
    partition.set_registers({name(register): segment(0x20, kind, 0x12340, 0xFFFFF)})
    found = partition.registers(name(register))[0].Segment
    assert (found.Selector, found.Attributes) == (0x20, kind)
    assert (found.Base, found.Limit) == (0x12340, 0xFFFFF)


def test_descriptor_tables(partition: Partition) -> None:
    for register in (name("Gdtr"), name("Idtr")):
        partition.set_registers({register: table(0x5000, 0x3F)})
        found = partition.registers(register)[0].Table
        assert (found.Base, found.Limit) == (0x5000, 0x3F)


@pytest.mark.parametrize("register", [*(f"Xmm{n}" for n in range(16))])
def test_vector_registers_have_128_bits(partition: Partition, register: str) -> None:
    partition.set_registers({name(register): 0x0123456789ABCDEF << 64 | 0xFEDCBA9876543210})
    found = partition.registers(name(register))[0].Reg128
    assert (found.High64, found.Low64) == (0x0123456789ABCDEF, 0xFEDCBA9876543210)


def test_floating_point_control(partition: Partition) -> None:
    control, vector = abi.WHV_REGISTER_VALUE(), abi.WHV_REGISTER_VALUE()
    control.FpControlStatus.FpControl = 0x27F
    vector.XmmControlStatus.XmmStatusControl = 0x1F80
    partition.set_registers({name("FpControlStatus"): control, name("XmmControlStatus"): vector})
    found = partition.registers(name("FpControlStatus"), name("XmmControlStatus"))
    assert found[0].FpControlStatus.FpControl == 0x27F
    assert found[1].XmmControlStatus.XmmStatusControl == 0x1F80


def test_the_guest_sees_the_floating_point_state(partition: Partition) -> None:
    memory = partition.map(0, 0x10000)
    identity_tables(memory, 0x2000)
    memory[0x1000] = bytes.fromhex(
        "0f ae 04 25 00 50 00 00"  # fxsave [0x5000]: a KVM in software executes no STMXCSR
        "e6 10"  # out 0x10, al
    )
    control, vector = abi.WHV_REGISTER_VALUE(), abi.WHV_REGISTER_VALUE()
    control.FpControlStatus.FpControl = 0x27F
    vector.XmmControlStatus.XmmStatusControl = 0x1F00
    partition.set_registers(
        long_mode(0x1000, 0x2000)
        | {
            name("Cr4"): 0x620,
            name("FpControlStatus"): control,
            name("XmmControlStatus"): vector,
            name("Xmm0"): 0x1122334455667788,
        }
    )
    assert partition.run().ExitReason == abi.WHvRunVpExitReasonX64IoPortAccess
    assert memory[0x5000:0x5002] == (0x27F).to_bytes(2, "little")
    assert memory[0x5018:0x501C] == (0x1F00).to_bytes(4, "little")
    assert memory[0x50A0:0x50A8] == (0x1122334455667788).to_bytes(8, "little")


def test_an_unknown_name(partition: Partition) -> None:
    for register in (0x7777, 0x2FFF, 0x00012345):
        with pytest.raises(HresultError) as caught:
            partition.register(register)
        assert caught.value.hresult == UNKNOWN_NAME
        with pytest.raises(HresultError) as caught:
            partition.set_registers({register: 0})
        assert caught.value.hresult == UNKNOWN_NAME


@pytest.mark.parametrize(
    ("register", "value"),
    [("Cr4", 1 << 40), ("Efer", 1 << 40), ("Efer", 1 << 4), ("Pat", 0xFF), ("XCr0", 2)],
)
def test_values_that_a_register_cannot_have(
    partition: Partition, register: str, value: int
) -> None:
    with pytest.raises(HresultError) as caught:
        partition.set_registers({name(register): value})
    assert caught.value.hresult == HV_INVALID_PARAMETER


def test_long_mode_is_entered_by_one_call(partition: Partition) -> None:
    partition.set_registers(long_mode(0x1000, 0x2000))
    assert partition.register(name("Efer")) == 0x500
    assert partition.register(name("Cr0")) == 0x80000011


def test_events(partition: Partition) -> None:
    pending = abi.WHV_REGISTER_VALUE()
    pending.PendingInterruption.InterruptionPending = 1
    pending.PendingInterruption.InterruptionType = abi.WHvX64PendingException
    pending.PendingInterruption.InterruptionVector = 13
    pending.PendingInterruption.DeliverErrorCode = 1
    pending.PendingInterruption.ErrorCode = 0x18
    partition.set_registers({abi.WHvRegisterPendingInterruption: pending})
    found = partition.registers(abi.WHvRegisterPendingInterruption)[0].PendingInterruption
    assert (found.InterruptionPending, found.InterruptionType) == (1, abi.WHvX64PendingException)
    assert (found.InterruptionVector, found.ErrorCode) == (13, 0x18)
    partition.set_registers({abi.WHvRegisterPendingInterruption: 0})
    assert partition.register(abi.WHvRegisterPendingInterruption) == 0
    partition.set_registers({abi.WHvRegisterInterruptState: 0b11})
    assert partition.register(abi.WHvRegisterInterruptState) == 0b11


# The local APIC


@pytest.mark.parametrize(
    ("register", "value"),
    [
        ("ApicLvtLint0", 0x700),
        ("ApicLvtLint1", 0x400),
        ("ApicLvtTimer", 0x10030),
        ("ApicSpurious", 0x1FF),
        ("ApicTpr", 0x20),
        ("ApicDivide", 0xB),
    ],
)
def test_apic_registers(partition: Partition, register: str, value: int) -> None:
    enabled = {name("ApicSpurious"): 0x1FF}
    partition.set_registers(enabled | {name(register): value})
    assert partition.register(name(register)) == value


def test_the_apic_as_a_page(partition: Partition) -> None:
    page, written = ctypes.create_string_buffer(4096), ctypes.c_uint32()
    state = "VirtualProcessorInterruptControllerState2"
    get = f"WHvGet{state}", partition.handle, 0, page
    assert hresult(*get, 100, ctypes.byref(written)) == INSUFFICIENT_BUFFER
    assert written.value == 4096
    call(*get, 4096, ctypes.byref(written))
    page[0xF0:0xF4] = (0x1FF).to_bytes(4, "little")
    page[0x350:0x354] = (0x700).to_bytes(4, "little")
    call(f"WHvSet{state}", partition.handle, 0, page, 4096)
    assert partition.register(name("ApicLvtLint0")) == 0x700
    assert partition.register(name("ApicSpurious")) == 0x1FF


def test_no_apic_where_none_is_emulated() -> None:
    with Partition() as partition:
        with pytest.raises(HresultError) as caught:
            partition.register(name("ApicTpr"))
        assert caught.value.hresult == UNKNOWN_NAME


# XSAVE


def test_the_xsave_area_is_compacted_and_goes_round(partition: Partition) -> None:
    needed = ctypes.c_uint32()
    get = "WHvGetVirtualProcessorXsaveState", partition.handle, 0
    tiny = ctypes.create_string_buffer(16)
    assert hresult(*get, tiny, 16, ctypes.byref(needed)) == INSUFFICIENT_BUFFER
    area = ctypes.create_string_buffer(needed.value)
    call(*get, area, needed.value, ctypes.byref(needed))
    layout = int.from_bytes(area.raw[520:528], "little")
    assert layout >> 63
    assert layout & 3 == 3
    area[160:176] = bytes(range(16))  # XMM0, as FXSAVE has it
    area[512:520] = (int.from_bytes(area.raw[512:520], "little") | 2).to_bytes(8, "little")
    call("WHvSetVirtualProcessorXsaveState", partition.handle, 0, area, needed.value)
    found = partition.registers(name("Xmm0"))[0].Reg128
    assert found.Low64 == int.from_bytes(bytes(range(8)), "little")
    again = ctypes.create_string_buffer(needed.value)
    kind = abi.WHvVirtualProcessorStateTypeXsaveState
    state = "WHvGetVirtualProcessorState", partition.handle, 0, kind
    call(*state, again, needed.value, ctypes.byref(needed))
    assert again.raw == area.raw


def test_the_components_of_the_xsave_area(partition: Partition) -> None:
    """AVX's upper halves come right after the header, wherever the standard format has them."""
    area = ctypes.create_string_buffer(4096)
    call("WHvGetVirtualProcessorXsaveState", partition.handle, 0, area, 4096, None)
    layout = int.from_bytes(area.raw[520:528], "little")
    if not layout & 4:
        assert layout & ~(1 << 63) == 3, "there is nothing but x87 and SSE"
        return
    area[576:592] = bytes(range(16))
    area[512:520] = (7).to_bytes(8, "little")
    call("WHvSetVirtualProcessorXsaveState", partition.handle, 0, area, 4096)
    again = ctypes.create_string_buffer(4096)
    call("WHvGetVirtualProcessorXsaveState", partition.handle, 0, again, 4096, None)
    assert again.raw[576:592] == bytes(range(16))


def test_an_xsave_area_in_the_standard_format_is_refused(partition: Partition) -> None:
    area = ctypes.create_string_buffer(4096)
    set_state = "WHvSetVirtualProcessorXsaveState", partition.handle, 0
    assert hresult(*set_state, area, 4096) == HV_INVALID_PARAMETER
