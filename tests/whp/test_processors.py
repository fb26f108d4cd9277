"""Several processors: threads, cancellation, and the local APIC in the partition."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Timer
from time import monotonic, sleep
from typing import Any

import pytest
from vmm_arch.abi import whp_x86_64 as abi

from whp.library import Partition, call, hresult, identity_tables, long_mode, real_mode, table

TABLES = 0xA000
CODE, SECOND, HANDLER = 0x1000, 0x8000, 0x9000
IO, CANCELED = abi.WHvRunVpExitReasonX64IoPortAccess, abi.WHvRunVpExitReasonCanceled
INVALID_STATE = 0x80370308
E_INVALIDARG = 0x80070057
HV_OPERATION_DENIED = 0xC0350008


@pytest.fixture
def partition() -> Iterator[Partition]:
    """Two processors with local APICs; page tables at TABLES, interrupt descriptors at 0x6000."""
    mode = ctypes.c_uint32(abi.WHvX64LocalApicEmulationModeXApic)
    properties = [(abi.WHvPartitionPropertyCodeLocalApicEmulationMode, mode)]
    with Partition(2, properties) as partition:
        memory = partition.map(0, 0x10000)
        identity_tables(memory, TABLES)
        memory[0x7008] = bytes.fromhex("00 00 00 00 00 9b 20 00")  # the code segment's descriptor
        yield partition


def gate(partition: Partition, vector: int, handler: int) -> None:
    """Write an interrupt gate of 64-bit code."""
    low = handler & 0xFFFF | 8 << 16 | 0x8E00 << 32 | (handler >> 16) << 48
    partition.kept[0][0x6000 + 16 * vector] = low.to_bytes(16, "little")


def start(partition: Partition, code: str, **registers: int) -> None:
    partition.kept[0][CODE] = bytes.fromhex(code)
    tables = {
        abi.WHvX64RegisterIdtr: table(0x6000, 0xFFF),
        abi.WHvX64RegisterGdtr: table(0x7000, 0xF),
        abi.WHvX64RegisterApicSpurious: 0x1FF,
    }
    partition.set_registers(long_mode(CODE, TABLES, Rsp=0xF000, **registers) | tables)


def interrupt(partition: Partition, vector: int, **fields: int) -> int:
    record = abi.WHV_INTERRUPT_CONTROL()
    record.Vector = vector
    for name, value in fields.items():
        setattr(record, name, value)
    size = ctypes.sizeof(record)
    return hresult("WHvRequestInterrupt", partition.handle, ctypes.byref(record), size)


def port(exit: Any) -> int:
    assert exit.ExitReason == IO, exit.ExitReason
    return int(exit.IoPortAccess.PortNumber)


@contextmanager
def running(partition: Partition, index: int = 0) -> Iterator[Future[Any]]:
    """A processor that another thread runs; whatever happens, it comes back in the end."""
    with ThreadPoolExecutor(1) as thread:
        run = thread.submit(partition.run, index)
        try:
            yield run
        finally:
            while not run.done():
                call("WHvCancelRunVirtualProcessor", partition.handle, index, 0)
                sleep(0.01)


# Cancellation


def test_another_thread_cancels_a_run() -> None:
    with Partition() as partition:
        partition.map(0, 0x2000)[CODE] = bytes.fromhex("eb fe")  # jmp to itself
        partition.set_registers(real_mode(CODE))
        begun = monotonic()
        cancel = "WHvCancelRunVirtualProcessor", partition.handle, 0, 0
        timer = Timer(0.2, call, cancel)
        timer.start()
        assert partition.run().ExitReason == CANCELED
        assert 0.1 < monotonic() - begun < 10
        timer.join()
        assert partition.register(abi.WHvX64RegisterRip) == CODE


def test_a_cancellation_before_the_run_ends_it_at_once() -> None:
    with Partition() as partition:
        partition.map(0, 0x2000)[CODE] = bytes.fromhex("f4")  # hlt
        partition.set_registers(real_mode(CODE))
        call("WHvCancelRunVirtualProcessor", partition.handle, 0, 0)
        assert partition.run().ExitReason == CANCELED
        assert partition.run().ExitReason == abi.WHvRunVpExitReasonX64Halt


def test_many_cancellations_are_one() -> None:
    """A signal that came late would end the process, and a second one the next run."""
    with Partition() as partition:
        partition.map(0, 0x2000)[CODE] = bytes.fromhex("eb fe")
        partition.set_registers(real_mode(CODE))
        for _ in range(50):
            with running(partition) as run:
                while not run.done():
                    call("WHvCancelRunVirtualProcessor", partition.handle, 0, 0)
            assert run.result().ExitReason == CANCELED
            call("WHvCancelRunVirtualProcessor", partition.handle, 0, 0)
            assert partition.run().ExitReason == CANCELED


def test_a_running_processor_is_nobody_elses() -> None:
    with Partition() as partition:
        partition.map(0, 0x2000)[CODE] = bytes.fromhex("eb fe")
        partition.set_registers(real_mode(CODE))
        names, values = (ctypes.c_int32 * 1)(0), (abi.WHV_REGISTER_VALUE * 1)()
        get = "WHvGetVirtualProcessorRegisters", partition.handle, 0, names, 1, values
        until = monotonic() + 10
        with running(partition) as run:
            sleep(0.2)  # who asks before the other one runs is in its way
            while hresult(*get) != INVALID_STATE:
                assert monotonic() < until
                sleep(0.2)
        assert run.result().ExitReason == CANCELED
        assert hresult(*get) == 0


# Time


def test_suspended_time_is_not_counted() -> None:
    frequency = ctypes.c_uint64()
    code = abi.WHvCapabilityCodeProcessorClockFrequency
    call("WHvGetCapability", code, ctypes.byref(frequency), 8, None)
    with Partition() as partition:

        def passes(function: Callable[[], None]) -> float:
            """The seconds that the guest's counter goes on by."""
            before = partition.register(abi.WHvX64RegisterTsc)
            function()
            return (partition.register(abi.WHvX64RegisterTsc) - before) / frequency.value

        def suspended() -> None:
            call("WHvSuspendPartitionTime", partition.handle)
            sleep(0.5)
            call("WHvResumePartitionTime", partition.handle)

        partition.set_registers({abi.WHvX64RegisterTsc: 0})
        is_own = partition.register(abi.WHvX64RegisterTsc) < 60 * frequency.value
        begun = monotonic()
        counted = passes(suspended)
        # A KVM in software shows the host's counter, which nothing stops.
        assert -0.1 < counted < monotonic() - begun - (0.4 if is_own else -0.1)
        assert passes(lambda: sleep(0.5)) > 0.4


# The APIC

ICR = 0xFEE00300


def write(address: int, value: int) -> str:
    """mov dword [address], value: with the address in eax, since it is above 2 GiB."""
    return f"b8 {address.to_bytes(4, 'little').hex()} c7 00 {value.to_bytes(4, 'little').hex()}"


def test_one_processor_starts_the_other(partition: Partition) -> None:
    suspended = partition.register(abi.WHvRegisterInternalActivityState, 1)
    assert suspended & 1
    assert partition.register(abi.WHvRegisterInternalActivityState, 0) & 1 == 0
    partition.kept[0][SECOND] = bytes.fromhex("e6 22 f4")  # out 0x22, al; hlt
    code = write(ICR + 0x10, 1 << 24) + write(ICR, 0x4500)  # INIT to APIC id 1
    code += write(ICR, 0x4600 | SECOND >> 12) + "e6 11"  # SIPI; out 0x11, al
    start(partition, code)
    with running(partition, 1) as second:
        assert port(partition.run()) == 0x11
        exit = second.result(timeout=20)
    assert port(exit) == 0x22
    assert (exit.VpContext.Cs.Base, exit.VpContext.Rip) == (SECOND, 0)


def test_a_processor_that_was_not_started_is_cancelled(partition: Partition) -> None:
    timer = Timer(0.2, call, ("WHvCancelRunVirtualProcessor", partition.handle, 1, 0))
    timer.start()
    assert partition.run(1).ExitReason == CANCELED
    timer.join()


def test_one_processor_interrupts_the_other(partition: Partition) -> None:
    """The second sleeps in HLT, which is no exit where the APIC is emulated."""
    gate(partition, 0x40, HANDLER)
    partition.kept[0][HANDLER] = bytes.fromhex("e6 40")  # out 0x40, al
    partition.kept[0][SECOND] = bytes.fromhex("fb f4 eb fd")  # sti; hlt; jmp back to hlt
    code = write(ICR + 0x10, 1 << 24) + write(ICR, 0x4040) + "e6 11"  # vector 0x40 to APIC id 1
    start(partition, code)
    tables = {
        abi.WHvX64RegisterIdtr: table(0x6000, 0xFFF),
        abi.WHvX64RegisterGdtr: table(0x7000, 0xF),
        abi.WHvX64RegisterApicSpurious: 0x1FF,
        abi.WHvRegisterInternalActivityState: 0,
    }
    partition.set_registers(long_mode(SECOND, TABLES, Rsp=0xE000) | tables, 1)
    with running(partition, 1) as second:
        assert port(partition.run()) == 0x11
        assert port(second.result(timeout=20)) == 0x40


def test_an_interrupt_from_outside(partition: Partition) -> None:
    gate(partition, 0x41, HANDLER)
    partition.kept[0][HANDLER] = bytes.fromhex("e6 41")  # out 0x41, al
    start(partition, "fb f4 eb fd")  # sti; hlt; jmp back to hlt
    Timer(0.1, interrupt, (partition, 0x41)).start()
    assert port(partition.run()) == 0x41


def test_the_end_of_a_level_triggered_interrupt_is_an_exit(partition: Partition) -> None:
    gate(partition, 0x42, HANDLER)
    partition.kept[0][HANDLER] = bytes.fromhex(write(0xFEE000B0, 0) + "e6 42 f4")  # EOI; out; hlt
    start(partition, "fb f4")  # sti; hlt
    level = abi.WHvX64InterruptTriggerModeLevel
    assert interrupt(partition, 0x42, TriggerMode=level) == 0
    exits = {}
    for _ in range(2):  # a KVM in software tells of it one exit late
        exit = partition.run()
        exits[exit.ExitReason] = exit
        if exit.ExitReason == IO:
            partition.step_over(exit)
    assert port(exits[IO]) == 0x42
    assert exits[abi.WHvRunVpExitReasonX64ApicEoi].ApicEoi.InterruptVector == 0x42


def test_an_edge_triggered_interrupt_ends_without_an_exit(partition: Partition) -> None:
    gate(partition, 0x43, HANDLER)
    partition.kept[0][HANDLER] = bytes.fromhex(write(0xFEE000B0, 0) + "e6 43")
    start(partition, "fb f4")
    assert interrupt(partition, 0x43) == 0
    assert port(partition.run()) == 0x43


def test_the_apic_timer(partition: Partition) -> None:
    gate(partition, 0x44, HANDLER)
    partition.kept[0][HANDLER] = bytes.fromhex("e6 44")
    start(partition, write(0xFEE00320, 0x44) + write(0xFEE00380, 1000) + "fb f4 eb fd")
    assert port(partition.run()) == 0x44


def test_interrupts_that_cannot_be_requested(partition: Partition) -> None:
    assert interrupt(partition, 0x40, Type=2) == E_INVALIDARG
    assert interrupt(partition, 0x140) == E_INVALIDARG
    record = abi.WHV_INTERRUPT_CONTROL()
    short = partition.handle, ctypes.byref(record), 8
    assert hresult("WHvRequestInterrupt", *short) == E_INVALIDARG
    with Partition() as without:
        assert interrupt(without, 0x40) == HV_OPERATION_DENIED
