"""The instruction emulator: it does to a device what the processor does to memory."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest
from vmm_arch.abi import whp_x86_64 as abi

from whp.emulator import Device, Emulator
from whp.library import Partition, identity_tables, load, long_mode, real_mode

TABLES = 0xA000
CODE, DATA, DEVICE = 0x1000, 0x5000, 0x100000
SIZE = 0x2000
E_INVALIDARG = 0x80070057
HALT = abi.WHvRunVpExitReasonX64Halt

GENERAL = ["Rax", "Rcx", "Rdx", "Rbx", "Rsp", "Rbp", "Rsi", "Rdi", *(f"R{n}" for n in range(8, 16))]
NAMES = [getattr(abi, f"WHvX64Register{name}") for name in [*GENERAL, "Rip", "Rflags"]]
CARRY, ARITHMETIC, LOGIC = 0x1, 0x8D5, 0x8C5
"""Flags that instructions define: the carry, all six, and those without the auxiliary carry."""


@pytest.fixture
def partition() -> Iterator[Partition]:
    with Partition() as partition:
        identity_tables(partition.map(0, 0x10000), TABLES)
        yield partition


@pytest.fixture
def device() -> Device:
    return Device(DEVICE, bytearray(SIZE))


@pytest.fixture
def emulator(partition: Partition, device: Device) -> Iterator[Emulator]:
    with Emulator(partition, device) as emulator:
        yield emulator


def start(partition: Partition, code: str, **registers: int) -> None:
    partition.kept[0][CODE] = bytes.fromhex(code) + b"\xf4"
    partition.set_registers(long_mode(CODE, TABLES, **registers))


def state(partition: Partition) -> list[int]:
    """General registers, RIP and flags."""
    return [value.Reg64 for value in partition.registers(*NAMES)]


def until_halt(partition: Partition, emulator: Emulator) -> None:
    """Run to HLT; whatever is in between, the emulator carries out."""
    while (exit := partition.run()).ExitReason != HALT:
        status = emulator.emulate(exit)
        assert status.AsUINT32 == 1, f"{status.AsUINT32:#x} at {exit.VpContext.Rip:#x}"


# The same instruction on memory, by the processor, and on the device, by the emulator.

INSTRUCTIONS = [
    ("8b 07", ARITHMETIC),  # mov eax, [rdi]
    ("48 8b 47 08", ARITHMETIC),  # mov rax, [rdi + 8]
    ("66 8b 07", ARITHMETIC),  # mov ax, [rdi]
    ("8a 27", ARITHMETIC),  # mov ah, [rdi]
    ("40 8a 2f", ARITHMETIC),  # mov bpl, [rdi]
    ("44 8a 07", ARITHMETIC),  # mov r8b, [rdi]
    ("89 07", ARITHMETIC),  # mov [rdi], eax
    ("48 89 04 f7", ARITHMETIC),  # mov [rdi + rsi * 8], rax
    ("88 67 01", ARITHMETIC),  # mov [rdi + 1], ah
    ("c6 07 2a", ARITHMETIC),  # mov byte [rdi], 42
    ("66 c7 07 34 12", ARITHMETIC),  # mov word [rdi], 0x1234
    ("48 c7 07 00 00 00 80", ARITHMETIC),  # mov qword [rdi], -0x80000000
    ("0f b6 07", ARITHMETIC),  # movzx eax, byte [rdi]
    ("66 0f b6 07", ARITHMETIC),  # movzx ax, byte [rdi]
    ("48 0f b7 07", ARITHMETIC),  # movzx rax, word [rdi]
    ("0f be 07", ARITHMETIC),  # movsx eax, byte [rdi]
    ("48 0f bf 47 02", ARITHMETIC),  # movsx rax, word [rdi + 2]
    ("48 63 07", ARITHMETIC),  # movsxd rax, dword [rdi]
    ("01 07", ARITHMETIC),  # add [rdi], eax
    ("48 03 07", ARITHMETIC),  # add rax, [rdi]
    ("10 07", ARITHMETIC),  # adc [rdi], al
    ("48 1b 07", ARITHMETIC),  # sbb rax, [rdi]
    ("29 07", ARITHMETIC),  # sub [rdi], eax
    ("80 2f ff", ARITHMETIC),  # sub byte [rdi], 0xff
    ("48 83 17 ff", ARITHMETIC),  # adc qword [rdi], -1
    ("09 07", LOGIC),  # or [rdi], eax
    ("22 07", LOGIC),  # and al, [rdi]
    ("81 27 ff 00 ff 00", LOGIC),  # and dword [rdi], 0x00ff00ff
    ("66 31 07", LOGIC),  # xor [rdi], ax
    ("48 39 07", ARITHMETIC),  # cmp [rdi], rax
    ("3a 27", ARITHMETIC),  # cmp ah, [rdi]
    ("83 3f 00", ARITHMETIC),  # cmp dword [rdi], 0
    ("84 07", LOGIC),  # test [rdi], al
    ("48 85 07", LOGIC),  # test [rdi], rax
    ("f6 07 80", LOGIC),  # test byte [rdi], 0x80
    ("f7 17", ARITHMETIC),  # not dword [rdi]
    ("48 f7 1f", ARITHMETIC),  # neg qword [rdi]
    ("fe 07", ARITHMETIC),  # inc byte [rdi]
    ("48 ff 0f", ARITHMETIC),  # dec qword [rdi]
    ("87 07", ARITHMETIC),  # xchg [rdi], eax
    ("f0 48 0f c1 07", ARITHMETIC),  # lock xadd [rdi], rax
    ("f0 0f b1 1f", ARITHMETIC),  # lock cmpxchg [rdi], ebx
    ("0f a3 17", CARRY),  # bt [rdi], edx
    ("48 0f ab 17", CARRY),  # bts [rdi], rdx
    ("0f ba 37 05", CARRY),  # btr dword [rdi], 5
    ("0f ba 7f 04 1f", CARRY),  # btc dword [rdi + 4], 31
    ("aa", ARITHMETIC),  # stosb
    ("f3 48 ab", ARITHMETIC),  # rep stosq
    ("67 f3 ab", ARITHMETIC),  # rep stosd, with edi and ecx
    ("fd f3 66 ab", ARITHMETIC),  # std; rep stosw
    ("48 87 f7 ad", ARITHMETIC),  # xchg rsi, rdi; lodsd
    ("48 87 f7 f3 a4", ARITHMETIC),  # xchg rsi, rdi; rep movsb, from the device
    ("48 be 00 50 00 00 00 00 00 00 f3 a5", ARITHMETIC),  # mov rsi, DATA; rep movsd, to the device
    ("48 89 fe 48 83 c7 40 f3 a5", ARITHMETIC),  # mov rsi, rdi; add rdi, 64; rep movsd: both
    ("f3 a6", ARITHMETIC),  # repe cmpsb
    ("f2 ae", ARITHMETIC),  # repne scasb
]
FIRST = {"Rax": 0x8877665544332281, "Rbx": 0x1122334455667788, "Rcx": 5, "Rdx": 35}
SECOND = {"Rax": 0, "Rbx": 0xFFFFFFFFFFFFFFFF, "Rcx": 0, "Rdx": 0xFFFFFFFFFFFFFFF0}
CONTENTS = [bytes(range(0x7C, 0xFC)), bytes(128), b"\xff" * 128]


@pytest.mark.parametrize(("code", "flags"), INSTRUCTIONS, ids=[code for code, _ in INSTRUCTIONS])
def test_a_device_is_treated_like_memory(
    partition: Partition, device: Device, emulator: Emulator, code: str, flags: int
) -> None:
    memory = partition.kept[0]
    for contents in CONTENTS:
        for registers in (FIRST, SECOND):
            both = registers | {"Rsi": 3, "Rbp": 0x4000, "Rflags": 0x8D7}
            memory[DATA] = bytes(64)
            memory[0x8000] = bytes(64) + contents
            start(partition, code, **(both | {"Rdi": 0x8040}))
            if "a6" in code:
                partition.set_registers({abi.WHvX64RegisterRsi: DATA})
            assert partition.run().ExitReason == HALT
            by_processor = state(partition)
            expected = memory[0x8000 : 0x8040 + len(contents)]

            memory[DATA] = bytes(64)
            device.memory[: 64 + len(contents)] = bytes(64) + contents
            start(partition, code, **(both | {"Rdi": DEVICE + 0x40}))
            if "a6" in code:
                partition.set_registers({abi.WHvX64RegisterRsi: DATA})
            until_halt(partition, emulator)
            by_emulator = state(partition)
            assert device.memory[: len(expected)] == expected
            assert (by_emulator[-1] ^ by_processor[-1]) & flags == 0
            for name, found, wanted in zip(GENERAL, by_emulator, by_processor, strict=False):
                moved = wanted - 0x8000 + DEVICE if 0x8000 <= wanted < 0x9000 else wanted
                assert found == moved, name
            assert by_emulator[16] == by_processor[16]


# Ports


def test_in_and_out(partition: Partition, device: Device, emulator: Emulator) -> None:
    device.ports[0x10] = [0x5A]
    device.ports[0x3F8] = [0x12345678]
    start(partition, "e4 10 ed e7 11", Rax=0xFFFFFFFFFFFFFFFF, Rdx=0x3F8)  # in al; in eax; out eax
    until_halt(partition, emulator)
    assert device.accesses == [
        ("in", 0x10, 1, 0x5A),
        ("in", 0x3F8, 4, 0x12345678),
        ("out", 0x11, 4, 0x12345678),
    ]
    assert partition.register(abi.WHvX64RegisterRax) == 0x12345678


def test_strings_to_and_from_ports(
    partition: Partition, device: Device, emulator: Emulator
) -> None:
    memory = partition.kept[0]
    memory[DATA] = b"abcdef"
    device.ports[0x3F8] = [0x6968, 0x6B6A, 0x6D6C]
    code = "f3 6e b9 03 00 00 00 f3 66 6d"  # rep outsb; mov ecx, 3; rep insw
    start(partition, code, Rsi=DATA, Rdi=DATA + 0x100, Rcx=6, Rdx=0x3F8)
    until_halt(partition, emulator)
    assert [access[3] for access in device.accesses[:6]] == list(b"abcdef")
    assert memory[DATA + 0x100 : DATA + 0x106] == b"hijklm"
    assert partition.register(abi.WHvX64RegisterRcx) == 0
    assert partition.register(abi.WHvX64RegisterRdi) == DATA + 0x106


def test_real_mode_strings(partition: Partition, device: Device, emulator: Emulator) -> None:
    memory = partition.kept[0]
    memory[DATA] = b"ok"
    memory[CODE] = bytes.fromhex("f3 6e f4")  # rep outsb; hlt
    partition.set_registers(real_mode(CODE, Rsi=DATA, Rcx=2, Rdx=0xE9))
    until_halt(partition, emulator)
    assert device.accesses == [("out", 0xE9, 1, ord("o")), ("out", 0xE9, 1, ord("k"))]


# How accesses are cut


def test_an_access_across_pages_is_two(
    partition: Partition, device: Device, emulator: Emulator
) -> None:
    """WhvEmulatorMemoryCallback.md: the example there is this one."""
    start(partition, "48 89 07", Rdi=DEVICE + 0xFFE, Rax=0x1122334455667788)  # mov [rdi], rax
    until_halt(partition, emulator)
    assert device.accesses == [
        ("write", DEVICE + 0xFFE, 2, 0x7788),
        ("write", DEVICE + 0x1000, 6, 0x112233445566),
    ]


def test_half_of_an_access_in_memory(
    partition: Partition, device: Device, emulator: Emulator
) -> None:
    memory = partition.map(DEVICE - 0x1000, 0x1000)
    start(partition, "48 89 07", Rdi=DEVICE - 4, Rax=0x1122334455667788)
    until_halt(partition, emulator)
    assert device.accesses == [("write", DEVICE, 4, 0x11223344)]
    assert memory[0xFFC:0x1000] == bytes.fromhex("88 77 66 55")


def test_bytes_that_the_exit_lacks_are_fetched(
    partition: Partition, device: Device, emulator: Emulator
) -> None:
    start(partition, "48 c7 07 78 56 34 12", Rdi=DEVICE)  # mov qword [rdi], 0x12345678
    for count in (0, 2):
        exit = partition.run()
        exit.MemoryAccess.InstructionByteCount = count
        assert emulator.emulate(exit).AsUINT32 == 1
        assert device.accesses.pop() == ("write", DEVICE, 8, 0x12345678)
        partition.set_registers({abi.WHvX64RegisterRip: CODE})


# What an emulation that is given up leaves: nothing


@pytest.mark.parametrize(
    ("callback", "bit"),
    [
        ("io", "IoPortCallbackFailed"),
        ("memory", "MemoryCallbackFailed"),
        ("translate", "TranslateGvaPageCallbackFailed"),
        ("get", "GetVirtualProcessorRegistersCallbackFailed"),
        ("set", "SetVirtualProcessorRegistersCallbackFailed"),
    ],
)
def test_a_callback_that_fails(
    partition: Partition, emulator: Emulator, callback: str, bit: str
) -> None:
    code = "f3 6e" if callback == "io" else "f3 ab"  # rep outsb; rep stosd
    start(partition, code, Rsi=DATA, Rdi=DEVICE, Rcx=3, Rdx=0x10)
    exit = partition.run()
    before = state(partition)
    emulator.refuse.add(callback)
    status = emulator.emulate(exit)
    assert getattr(status, bit)
    assert not status.EmulationSuccessful
    assert state(partition) == before
    assert emulator.sets == (callback == "set")
    emulator.refuse.clear()
    assert emulator.emulate(exit).EmulationSuccessful == (callback != "io" or 1)


def test_a_page_that_is_none(partition: Partition, emulator: Emulator) -> None:
    start(partition, "89 07", Rdi=DEVICE)
    exit = partition.run()
    emulator.misaligned = 8
    assert emulator.emulate(exit).TranslateGvaPageCallbackGpaIsNotAligned


def test_an_instruction_that_it_does_not_know(partition: Partition, emulator: Emulator) -> None:
    start(partition, "8b 07", Rdi=DEVICE)
    exit = partition.run()
    partition.kept[0][CODE] = bytes.fromhex("0f 0b") * 8  # ud2
    exit.MemoryAccess.InstructionByteCount = 0
    status = emulator.emulate(exit)
    assert status.InternalEmulationFailure
    assert not status.EmulationSuccessful


def test_an_exit_with_an_interruption_pending(partition: Partition, emulator: Emulator) -> None:
    start(partition, "8b 07", Rdi=DEVICE)
    exit = partition.run()
    exit.VpContext.ExecutionState.InterruptionPending = 1
    assert emulator.emulate(exit).InterruptCausedIntercept


def test_arguments_that_are_refused(emulator: Emulator) -> None:
    library = load("WinHvEmulation.dll", "winhvemulation.h")
    handle, record = ctypes.c_void_p(), abi.WHV_EMULATOR_CALLBACKS()
    record.Size = ctypes.sizeof(record)
    create = library.WHvEmulatorCreateEmulator
    assert create(ctypes.byref(record), ctypes.byref(handle)) & 0xFFFFFFFF == E_INVALIDARG
    assert create(None, ctypes.byref(handle)) & 0xFFFFFFFF == E_INVALIDARG
    assert library.WHvEmulatorDestroyEmulator(None) & 0xFFFFFFFF == E_INVALIDARG
