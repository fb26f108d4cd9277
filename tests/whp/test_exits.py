"""Exits: what they tell, and that the processor is just before the instruction."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import pytest
from vmm_arch.abi import whp_x86_64 as abi

from whp.library import Partition, call, identity_tables, long_mode, real_mode, segment

TABLES = 0xA000
IO = abi.WHvRunVpExitReasonX64IoPortAccess
MEMORY = abi.WHvRunVpExitReasonMemoryAccess
HALT = abi.WHvRunVpExitReasonX64Halt
READ, WRITE, EXECUTE = 0, 1, 2
CODE, DEVICE = 0x1000, 0x100000
"""Where guests' code is, and an address where there is no memory."""


@pytest.fixture
def partition() -> Iterator[Partition]:
    """Memory in the first 64 KiB; 64-bit code's page tables at TABLES."""
    with Partition() as partition:
        memory = partition.map(0, 0x10000)
        identity_tables(memory, TABLES)
        yield partition


def load(partition: Partition, code: str) -> None:
    partition.kept[0][CODE] = bytes.fromhex(code)


def real(partition: Partition, code: str, **registers: int) -> Any:
    load(partition, code)
    partition.set_registers(real_mode(CODE, **registers))
    return partition.run()


def long(partition: Partition, code: str, **registers: int) -> Any:
    load(partition, code)
    partition.set_registers(long_mode(CODE, TABLES, **registers))
    return partition.run()


def rax(partition: Partition) -> int:
    return partition.register(abi.WHvX64RegisterRax)


def where(exit: Any) -> tuple[int, int, int]:
    """Why, where from the code's beginning, and how long the instruction is."""
    context = exit.VpContext
    return exit.ExitReason, context.Rip - CODE, context.InstructionLength


def port(exit: Any) -> tuple[int, int, int]:
    """An access to a port: port, size, whether it is a write."""
    access = exit.IoPortAccess
    return access.PortNumber, access.AccessInfo.AccessSize, access.AccessInfo.IsWrite


def memory(exit: Any) -> tuple[int, int, int]:
    """An access to memory: address, type, whether nothing is mapped there."""
    access = exit.MemoryAccess
    return access.Gpa, access.AccessInfo.AccessType, access.AccessInfo.GpaUnmapped


# Ports

OUTS = [
    ("e6 11", (0x11, 1, 1)),  # out 0x11, al
    ("e7 11", (0x11, 2, 1)),  # out 0x11, ax
    ("66 e7 11", (0x11, 4, 1)),  # out 0x11, eax
    ("ee", (0x3F8, 1, 1)),  # out dx, al
    ("ef", (0x3F8, 2, 1)),  # out dx, ax
    ("66 ef", (0x3F8, 4, 1)),  # out dx, eax
    ("e6 7e", (0x7E, 1, 1)),  # the port that is a quirk of KVM's
]
INS = [
    ("e4 10", (0x10, 1, 0)),  # in al, 0x10
    ("e5 10", (0x10, 2, 0)),  # in ax, 0x10
    ("66 e5 10", (0x10, 4, 0)),  # in eax, 0x10
    ("ec", (0x3F8, 1, 0)),  # in al, dx
    ("66 ed", (0x3F8, 4, 0)),  # in eax, dx
]


@pytest.mark.parametrize(("code", "access"), [*OUTS, *INS], ids=[code for code, _ in [*OUTS, *INS]])
def test_a_port(partition: Partition, code: str, access: tuple[int, int, int]) -> None:
    length = len(bytes.fromhex(code))
    exit = real(partition, code + "f4", Rax=0x12345678, Rdx=0x3F8)
    assert where(exit) == (IO, 0, length)
    assert port(exit) == access
    assert exit.IoPortAccess.Rax == 0x12345678
    count = exit.IoPortAccess.InstructionByteCount
    assert bytes(exit.IoPortAccess.InstructionBytes)[:count].startswith(bytes.fromhex(code))
    assert rax(partition) == 0x12345678
    # Who does not step over it comes back to it.
    assert where(partition.run()) == (IO, 0, length)
    partition.step_over(exit, Rax=0x99)
    assert where(partition.run()) == (HALT, length + 1, 0)
    assert rax(partition) == 0x99


def test_one_out_after_another(partition: Partition) -> None:
    """Each is told of by its own address, although the same bytes come before it."""
    exit = real(partition, "ee ee ee f4", Rax=0x41, Rdx=0x3F8)
    for offset in range(3):
        assert where(exit) == (IO, offset, 1)
        partition.step_over(exit)
        exit = partition.run()
    assert where(exit) == (HALT, 4, 0)


STRINGS = [
    ("6e", 0, 1),  # outsb
    ("f3 6e", 1, 1),  # rep outsb
    ("6c", 0, 0),  # insb
    ("f3 6c", 1, 0),  # rep insb
    ("f3 66 6d", 1, 0),  # rep insd
]


@pytest.mark.parametrize(("code", "repeated", "write"), STRINGS, ids=[s[0] for s in STRINGS])
@pytest.mark.parametrize("flags", [2, 0x402], ids=["up", "down"])
def test_string_io_is_one_exit_with_nothing_done(
    partition: Partition, code: str, repeated: int, write: int, flags: int
) -> None:
    partition.kept[0][0x5000] = b"unchanged" * 4
    registers = {"Rcx": 3, "Rsi": 0x5008, "Rdi": 0x5008, "Rdx": 0x3F8}
    load(partition, code)
    values = real_mode(CODE, **registers) | {abi.WHvX64RegisterRflags: flags}
    partition.set_registers(values)
    exit = partition.run()
    assert where(exit) == (IO, 0, len(bytes.fromhex(code)))
    info = exit.IoPortAccess.AccessInfo
    assert (info.StringOp, info.RepPrefix, info.IsWrite) == (1, repeated, write)
    context = exit.IoPortAccess
    assert (context.Rcx, context.Rsi, context.Rdi) == (3, 0x5008, 0x5008)
    for register, value in registers.items():
        assert partition.register(getattr(abi, f"WHvX64Register{register}")) == value
    assert partition.kept[0][0x5000 : 0x5000 + 36] == b"unchanged" * 4


# Memory that is not there

LOADS = [
    "8b 07",  # mov eax, [rdi]
    "48 8b 07",  # mov rax, [rdi]
    "0f b6 07",  # movzx eax, byte [rdi]
    "8a 07",  # mov al, [rdi]
    "48 a1 00 00 10 00 00 00 00 00",  # movabs rax, [DEVICE]
    "09 07",  # or [rdi], eax
    "87 07",  # xchg [rdi], eax
]
STORES = [
    "89 07",  # mov [rdi], eax
    "48 89 07",  # mov [rdi], rax
    "66 89 07",  # mov [rdi], ax
    "88 07",  # mov [rdi], al
    "88 27",  # mov [rdi], ah
    "44 89 47 00",  # mov [rdi + 0], r8d
    "c7 07 78 56 34 12",  # mov dword [rdi], 0x12345678
    "48 c7 07 78 56 34 12",  # mov qword [rdi], 0x12345678
    "c6 07 2a",  # mov byte [rdi], 42
    "89 44 24 10",  # mov [rsp + 16], eax
    "48 a3 00 00 10 00 00 00 00 00",  # movabs [DEVICE], rax
    "aa",  # stosb
    "f3 ab",  # rep stosd
    "a5",  # movsd
    "f3 48 a5",  # rep movsq
    "0f c3 07",  # movnti [rdi], eax
]
REGISTERS = {"Rdi": DEVICE, "Rsi": 0x5000, "Rcx": 4, "Rax": 0x1122334455667788, "R8": 0x99AABBCC}
REGISTERS["Rsp"] = DEVICE - 16


@pytest.mark.parametrize(
    ("code", "kind"),
    [*((code, READ) for code in LOADS), *((code, WRITE) for code in STORES)],
    ids=[*LOADS, *STORES],
)
@pytest.mark.parametrize("before", ["90", "f8", "b0 88", "48 31 db"], ids=lambda code: f"({code})")
def test_an_access_where_there_is_no_memory(
    partition: Partition, before: str, code: str, kind: int
) -> None:
    """Whatever comes before it: nop; clc; mov al, 0x88 and xor rbx, rbx."""
    partition.kept[0][0x5000] = bytes(range(32))
    exit = long(partition, before + code + "f4", **REGISTERS)
    start = len(bytes.fromhex(before))
    assert where(exit) == (MEMORY, start, len(bytes.fromhex(code)))
    assert memory(exit) == (DEVICE, kind, 1)
    for register, value in REGISTERS.items():
        assert partition.register(getattr(abi, f"WHvX64Register{register}")) == value
    assert partition.kept[0][0x5000:0x5020] == bytes(range(32))
    partition.step_over(exit)
    assert partition.run().ExitReason == HALT


def test_a_load_to_memory_leaves_the_memory_alone(partition: Partition) -> None:
    partition.kept[0][0x5000] = b"untouched"
    exit = long(partition, "f3 a4 f4", Rsi=DEVICE, Rdi=0x5000, Rcx=9)  # rep movsb
    assert where(exit) == (MEMORY, 0, 2)
    assert memory(exit) == (DEVICE, READ, 1)
    assert partition.kept[0][0x5000:0x5009] == b"untouched"
    assert partition.register(abi.WHvX64RegisterRcx) == 9


def test_an_access_across_the_border_of_a_page(partition: Partition) -> None:
    partition.map(DEVICE, 0x1000)
    exit = long(partition, "48 8b 07 f4", Rdi=DEVICE + 0xFFC)  # mov rax, [rdi]
    assert where(exit) == (MEMORY, 0, 3)
    assert memory(exit) == (DEVICE + 0x1000, READ, 1)


def test_real_mode_reaches_memory_through_segments(partition: Partition) -> None:
    load(partition, "a2 34 12 f4")  # mov [0x1234], al
    partition.set_registers(
        real_mode(CODE, Rax=0x55) | {abi.WHvX64RegisterDs: segment(0xF000, 0x93, 0xF0000)}
    )
    exit = partition.run()
    assert where(exit) == (MEMORY, 0, 3)
    assert memory(exit) == (0xF1234, WRITE, 1)
    assert exit.MemoryAccess.AccessInfo.GvaValid
    assert exit.MemoryAccess.Gva == 0xF1234


def test_execution_where_there_is_no_memory(partition: Partition) -> None:
    exit = long(partition, "ff e0", Rax=DEVICE)  # jmp rax
    assert exit.ExitReason == MEMORY
    assert memory(exit) == (DEVICE, EXECUTE, 1)
    assert exit.VpContext.Rip == DEVICE


def test_read_only_memory_is_read_and_not_written(partition: Partition) -> None:
    flags = abi.WHvMapGpaRangeFlagRead | abi.WHvMapGpaRangeFlagExecute
    rom = partition.map(DEVICE, 0x1000, flags)
    rom[0] = b"\x2a"
    exit = long(partition, "8a 07 88 07 f4", Rdi=DEVICE)  # mov al, [rdi]; mov [rdi], al
    assert where(exit) == (MEMORY, 2, 2)
    assert memory(exit) == (DEVICE, WRITE, 0)
    assert rax(partition) & 0xFF == 0x2A


def test_memory_that_nobody_may_touch(partition: Partition) -> None:
    partition.map(DEVICE, 0x1000, abi.WHvMapGpaRangeFlagNone)
    exit = long(partition, "8a 07 f4", Rdi=DEVICE)  # mov al, [rdi]
    assert memory(exit) == (DEVICE, READ, 0)


# How a processor ends


def test_halt(partition: Partition) -> None:
    assert where(real(partition, "f4")) == (HALT, 1, 0)


def test_a_triple_fault(partition: Partition) -> None:
    exit = long(partition, "0f 0b")  # ud2, without any descriptor table
    assert exit.ExitReason == abi.WHvRunVpExitReasonUnrecoverableException


# CPUID, MSRs and exceptions, where the partition asks for them


def asked(partition: Partition, extended: int, *more: tuple[int, Any]) -> None:
    partition.set(abi.WHvPartitionPropertyCodeExtendedVmExits, ctypes.c_uint64(extended))
    for code, value in more:
        partition.set(code, value)


def test_cpuid(partition: Partition) -> None:
    listed = abi.WHvPartitionPropertyCodeCpuidExitList, (ctypes.c_uint32 * 2)(0, 0x40000000)
    asked(partition, 1, listed)
    exit = long(partition, "31 c9 0f a2 f4", Rax=0, Rbx=7)  # xor ecx, ecx; cpuid; hlt
    assert where(exit) == (abi.WHvRunVpExitReasonX64Cpuid, 2, 2)
    access = exit.CpuidAccess
    assert (access.Rax, access.Rbx, access.Rcx) == (0, 7, 0)
    vendor = [access.DefaultResultRbx, access.DefaultResultRdx, access.DefaultResultRcx]
    assert b"".join(part.to_bytes(4, "little") for part in vendor) in (
        b"AuthenticAMD",
        b"GenuineIntel",
        b"HygonGenuine",
    )
    partition.step_over(exit, Rax=0x10)
    assert where(partition.run()) == (HALT, 5, 0)
    exit = long(partition, "0f a2 f4", Rax=1)  # not in the list
    assert where(exit) == (HALT, 3, 0)


def test_cpuid_results(partition: Partition) -> None:
    lists: list[tuple[int, Any]] = []
    old = (abi.WHV_X64_CPUID_RESULT * 1)()
    old[0].Function, old[0].Ebx = 0x40000000, 0x12345678
    lists.append((abi.WHvPartitionPropertyCodeCpuidResultList, old))
    new = (abi.WHV_X64_CPUID_RESULT2 * 3)()
    for record, subleaf, processor in zip(new, (1, 2, 2), (0, 0, 1), strict=True):
        record.Function, record.Index, record.VpIndex = 0x8000FFFF, subleaf, processor
        record.Flags = (
            abi.WHvX64CpuidResult2FlagSubleafSpecific | abi.WHvX64CpuidResult2FlagVpSpecific
        )
        record.Output.Eax, record.Mask.Eax = 0x100 * subleaf + processor, 0xFFFFFFFF
    lists.append((abi.WHvPartitionPropertyCodeCpuidResultList2, new))
    with Partition(2, lists) as partition:
        output = abi.WHV_CPUID_OUTPUT()

        def eax(index: int, leaf: int, subleaf: int = 0) -> int:
            name = "WHvGetVirtualProcessorCpuidOutput"
            call(name, partition.handle, index, leaf, subleaf, ctypes.byref(output))
            return int(output.Eax)

        assert eax(0, 0x40000000) == 0
        assert output.Ebx == 0x12345678
        assert [eax(0, 0x8000FFFF, n) for n in (1, 2)] == [0x100, 0x200]
        assert [eax(1, 0x8000FFFF, n) for n in (1, 2)] == [0, 0x201]
        assert eax(1, 1)
        assert output.Ebx >> 24 == 1


MSR = abi.WHvRunVpExitReasonX64MsrAccess


def test_msrs_that_nobody_has(partition: Partition) -> None:
    asked(partition, 2)
    exit = long(partition, "0f 32 0f 30 f4", Rcx=0x12345678, Rax=1, Rdx=2)  # rdmsr; wrmsr; hlt
    assert where(exit) == (MSR, 0, 2)
    access = exit.MsrAccess
    assert (access.AccessInfo.IsWrite, access.MsrNumber) == (0, 0x12345678)
    partition.step_over(exit, Rax=0x11, Rdx=0x22)
    exit = partition.run()
    assert where(exit) == (MSR, 2, 2)
    access = exit.MsrAccess
    assert (access.AccessInfo.IsWrite, access.Rax, access.Rdx) == (1, 0x11, 0x22)
    partition.step_over(exit)
    assert where(partition.run()) == (HALT, 5, 0)


def test_msrs_of_the_exit_bitmap(partition: Partition) -> None:
    bits = 1 << 3 | 1 << 4  # writes of APIC_BASE, reads of MISC_ENABLE
    bitmap = abi.WHvPartitionPropertyCodeX64MsrExitBitmap, ctypes.c_uint64(bits)
    asked(partition, 2, bitmap)
    exit = long(partition, "0f 32 f4", Rcx=0x1A0)
    assert (where(exit), exit.MsrAccess.MsrNumber) == ((MSR, 0, 2), 0x1A0)
    exit = long(partition, "0f 32 f4", Rcx=0x1B)  # a read of APIC_BASE
    assert where(exit) == (HALT, 3, 0)


def test_msrs_with_an_action() -> None:
    entries = (abi.WHV_MSR_ACTION_ENTRY * 1)()
    entries[0].Index = 0xC0000082  # LSTAR
    entries[0].ReadAction = abi.WHvMsrActionExit
    entries[0].WriteAction = abi.WHvMsrActionIgnoreWriteReadZero
    actions = [
        (abi.WHvPartitionPropertyCodeMsrActionList, entries),
        (
            abi.WHvPartitionPropertyCodeUnimplementedMsrAction,
            ctypes.c_uint32(abi.WHvMsrActionIgnoreWriteReadZero),
        ),
    ]
    with Partition(properties=actions) as partition:
        identity_tables(partition.map(0, 0x10000), TABLES)
        exit = long(partition, "0f 30 0f 32", Rcx=0xC0000082, Rax=5)  # wrmsr; rdmsr
        assert where(exit) == (MSR, 2, 2)
        assert partition.register(abi.WHvX64RegisterLstar) == 0
        exit = long(partition, "0f 32 f4", Rcx=0x12345678, Rax=5, Rdx=5)
        assert where(exit) == (HALT, 3, 0)
        assert rax(partition) == 0


def test_a_breakpoint(partition: Partition) -> None:
    bitmap = abi.WHvPartitionPropertyCodeExceptionExitBitmap, ctypes.c_uint64(1 << 3)
    asked(partition, 4, bitmap)
    for run in (real, long):
        exit = run(partition, "90 cc f4")  # nop; int3; hlt
        assert where(exit) == (abi.WHvRunVpExitReasonException, 1, 1)
        assert exit.VpException.ExceptionType == abi.WHvX64ExceptionTypeBreakpointTrap
        partition.step_over(exit)
        assert where(partition.run()) == (HALT, 3, 0)


UNDEFINED, PAGE_FAULT = 6, 14
NOWHERE, LAST_PAGE = 0x4000_1000, 0x3FFF_FFFC  # the first GiB is there


@pytest.mark.parametrize(
    ("code", "rbx", "error", "address"),
    [
        ("0f 0b", 0, None, 0),  # ud2
        ("8b 03", NOWHERE, 0, NOWHERE),  # mov eax, [rbx]
        ("89 03", NOWHERE, 2, NOWHERE),  # mov [rbx], eax
        ("3b 03", NOWHERE, 0, NOWHERE),  # cmp eax, [rbx]
        ("39 03", NOWHERE, 0, NOWHERE),  # cmp [rbx], eax
        ("01 03", NOWHERE, 2, NOWHERE),  # add [rbx], eax
        ("85 03", NOWHERE, 0, NOWHERE),  # test [rbx], eax
        ("48 8b 03", LAST_PAGE, 0, 0x40000000),  # mov rax, [rbx], half of it on the next page
        ("8b 03 f4", LAST_PAGE, None, None),  # which is whole
        ("8b 03", 1 << 63, None, None),  # not canonical: #GP
    ],
)
def test_an_exception(
    partition: Partition, code: str, rbx: int, error: int | None, address: int | None
) -> None:
    vectors = 1 << UNDEFINED | 1 << PAGE_FAULT
    bitmap = abi.WHvPartitionPropertyCodeExceptionExitBitmap, ctypes.c_uint64(vectors)
    asked(partition, 4, bitmap)
    exit = long(partition, "90" + code, Rbx=rbx)
    if address is None:
        assert exit.ExitReason != abi.WHvRunVpExitReasonException
        return
    assert where(exit) == (abi.WHvRunVpExitReasonException, 1, 0)
    raised = exit.VpException
    assert raised.ExceptionType == (UNDEFINED if error is None else PAGE_FAULT)
    assert raised.ExceptionInfo.ErrorCodeValid == (error is not None)
    assert (raised.ErrorCode, raised.ExceptionParameter) == (error or 0, address)
    assert bytes(raised.InstructionBytes[: len(bytes.fromhex(code))]) == bytes.fromhex(code)


# Interrupts without a local APIC


def test_an_interrupt_is_injected_when_there_is_a_window(partition: Partition) -> None:
    vectors = partition.kept[0]
    vectors[4 * 0x20] = bytes.fromhex("00 60 00 00")
    vectors[0x6000] = bytes.fromhex("b0 77 f4")  # mov al, 0x77; hlt
    load(partition, "fb 90 90 eb fd")  # sti; nop; nop; jmp to itself
    wanted = abi.WHV_REGISTER_VALUE()
    wanted.DeliverabilityNotifications.InterruptNotification = 1
    name = abi.WHvX64RegisterDeliverabilityNotifications
    partition.set_registers(real_mode(CODE, Rsp=0x8000) | {name: wanted})
    exit = partition.run()
    assert exit.ExitReason == abi.WHvRunVpExitReasonX64InterruptWindow
    assert exit.VpContext.Rflags & 0x200
    pending = abi.WHV_REGISTER_VALUE()
    pending.PendingInterruption.InterruptionPending = 1
    pending.PendingInterruption.InterruptionVector = 0x20
    partition.set_registers({abi.WHvRegisterPendingInterruption: pending})
    exit = partition.run()
    assert (exit.ExitReason, exit.VpContext.Rip) == (HALT, 0x6003)
    assert rax(partition) & 0xFF == 0x77
