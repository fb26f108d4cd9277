"""What Microsoft's pages say of misuse: each rule with its HRESULT."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest
from vmm_arch.abi import whp_x86_64 as abi

from whp.library import RWX, Memory, Partition, call, hresult

S_OK = 0
E_INVALIDARG = 0x80070057
E_ACCESSDENIED = 0x80070005
E_POINTER = 0x80004003
NOT_SUPPORTED = 0x80070032
UNKNOWN_CAPABILITY = 0x80370300
INSUFFICIENT_BUFFER = 0x80370301
UNKNOWN_PROPERTY = 0x80370302
INVALID_PARTITION_CONFIG = 0x80370304
GPA_RANGE_NOT_FOUND = 0x80370305
VP_ALREADY_EXISTS = 0x80370306
VP_DOES_NOT_EXIST = 0x80370307
PARTITION_ALREADY_EXISTS = 0xC0370008

COUNT = abi.WHvPartitionPropertyCodeProcessorCount


@pytest.fixture
def new() -> Iterator[ctypes.c_void_p]:
    """A partition before WHvSetupPartition."""
    handle = ctypes.c_void_p()
    call("WHvCreatePartition", ctypes.byref(handle))
    yield handle
    call("WHvDeletePartition", handle)


@pytest.fixture
def partition() -> Iterator[Partition]:
    with Partition() as partition:
        yield partition


def set_property(handle: ctypes.c_void_p, code: int, value: int, size: int = 4) -> int:
    data = ctypes.create_string_buffer(value.to_bytes(size, "little"), size)
    return hresult("WHvSetPartitionProperty", handle, code, data, size)


def capability(code: int, size: int = 8) -> int:
    buffer, written = ctypes.create_string_buffer(size), ctypes.c_uint32()
    call("WHvGetCapability", code, buffer, size, ctypes.byref(written))
    return int.from_bytes(buffer.raw[: written.value], "little")


# Capabilities


def test_the_hypervisor_is_present() -> None:
    assert capability(abi.WHvCapabilityCodeHypervisorPresent) == 1


def test_capabilities_that_a_vmm_asks_for() -> None:
    assert capability(abi.WHvCapabilityCodeExtendedVmExits) & 0b111 == 0b111
    assert capability(abi.WHvCapabilityCodeFeatures) & 0b1110 == 0b1110  # APIC, XSAVE, dirty pages
    assert capability(abi.WHvCapabilityCodeProcessorVendor) in (0, 1, 2)
    assert capability(abi.WHvCapabilityCodeProcessorClockFrequency) > 100_000_000
    assert capability(abi.WHvCapabilityCodeInterruptClockFrequency) == 1_000_000_000
    banks = capability(abi.WHvCapabilityCodeSyntheticProcessorFeaturesBanks, 16)
    assert banks & 0xFFFFFFFF == 1


def test_xsave_is_a_capability_if_the_processor_has_it(partition: Partition) -> None:
    output = abi.WHV_CPUID_OUTPUT()
    name = "WHvGetVirtualProcessorCpuidOutput"
    call(name, partition.handle, 0, 1, 0, ctypes.byref(output))
    features = capability(abi.WHvCapabilityCodeProcessorXsaveFeatures)
    assert features & 1 == output.Ecx >> 26 & 1


def test_an_unknown_capability() -> None:
    buffer = ctypes.create_string_buffer(64)
    assert hresult("WHvGetCapability", 0x7777, buffer, 64, None) == UNKNOWN_CAPABILITY


def test_a_buffer_that_is_too_small_and_how_large_it_has_to_be() -> None:
    buffer, written = ctypes.create_string_buffer(4), ctypes.c_uint32()
    arguments = abi.WHvCapabilityCodeFeatures, buffer, 4, ctypes.byref(written)
    assert hresult("WHvGetCapability", *arguments) == INSUFFICIENT_BUFFER
    assert written.value == 8


# Partitions and properties


def test_a_partition_without_a_processor_count(new: ctypes.c_void_p) -> None:
    assert hresult("WHvSetupPartition", new) == INVALID_PARTITION_CONFIG
    assert set_property(new, COUNT, 1) == S_OK
    assert hresult("WHvSetupPartition", new) == S_OK


@pytest.mark.parametrize("count", [0, 4096])
def test_a_processor_count_that_cannot_be(new: ctypes.c_void_p, count: int) -> None:
    assert set_property(new, COUNT, count) == E_INVALIDARG


def test_an_unknown_property(new: ctypes.c_void_p) -> None:
    assert set_property(new, 0x7777, 0) == UNKNOWN_PROPERTY
    buffer = ctypes.create_string_buffer(8)
    assert hresult("WHvGetPartitionProperty", new, 0x7777, buffer, 8, None) == UNKNOWN_PROPERTY


def test_properties_that_do_not_change_after_setup(partition: Partition) -> None:
    assert set_property(partition.handle, COUNT, 2) == E_INVALIDARG
    mode = abi.WHvPartitionPropertyCodeLocalApicEmulationMode
    assert set_property(partition.handle, mode, 1) == E_INVALIDARG
    results = abi.WHvPartitionPropertyCodeCpuidResultList
    assert set_property(partition.handle, results, 0, 32) == E_INVALIDARG


def test_properties_that_change_after_setup(partition: Partition) -> None:
    for code, value, size in [
        (abi.WHvPartitionPropertyCodeExtendedVmExits, 0b111, 8),
        (abi.WHvPartitionPropertyCodeExceptionExitBitmap, 1 << 3, 8),
        (abi.WHvPartitionPropertyCodeX64MsrExitBitmap, 0b11, 8),
        (abi.WHvPartitionPropertyCodeCpuidExitList, 1, 4),
    ]:
        assert set_property(partition.handle, code, value, size) == S_OK


def test_what_was_set_is_read(partition: Partition) -> None:
    code = abi.WHvPartitionPropertyCodeExtendedVmExits
    assert set_property(partition.handle, code, 0b110, 8) == S_OK
    value, written = ctypes.c_uint64(), ctypes.c_uint32()
    arguments = partition.handle, code, ctypes.byref(value), 8, ctypes.byref(written)
    call("WHvGetPartitionProperty", *arguments)
    assert (value.value, written.value) == (0b110, 8)


def test_exits_that_are_no_capability(partition: Partition) -> None:
    code = abi.WHvPartitionPropertyCodeExtendedVmExits
    assert set_property(partition.handle, code, 1 << 40, 8) == E_INVALIDARG


def test_the_cpuid_lists_cannot_be_read(partition: Partition) -> None:
    buffer = ctypes.create_string_buffer(64)
    for code in (
        abi.WHvPartitionPropertyCodeCpuidExitList,
        abi.WHvPartitionPropertyCodeCpuidResultList,
    ):
        arguments = partition.handle, code, buffer, 64, None
        assert hresult("WHvGetPartitionProperty", *arguments) == NOT_SUPPORTED


def test_a_handle_that_is_none() -> None:
    assert hresult("WHvSetupPartition", None) == E_INVALIDARG
    assert hresult("WHvDeletePartition", None) == E_INVALIDARG


def test_a_partition_is_deleted_once() -> None:
    handle = ctypes.c_void_p()
    call("WHvCreatePartition", ctypes.byref(handle))
    call("WHvDeletePartition", handle)
    assert hresult("WHvDeletePartition", handle) == E_INVALIDARG


def test_nothing_is_mapped_and_no_processor_made_before_setup(new: ctypes.c_void_p) -> None:
    memory = Memory(0x1000)
    assert hresult("WHvMapGpaRange", new, memory.address, 0, 0x1000, 7) == E_INVALIDARG
    assert hresult("WHvCreateVirtualProcessor", new, 0, 0) == E_INVALIDARG


# Processors


def test_a_processor_exists_once(partition: Partition) -> None:
    create = "WHvCreateVirtualProcessor"
    assert hresult(create, partition.handle, 0, 0) == VP_ALREADY_EXISTS
    assert hresult(f"{create}2", partition.handle, 0, None, 0) == VP_ALREADY_EXISTS


def test_a_processor_beyond_the_count(partition: Partition) -> None:
    assert hresult("WHvCreateVirtualProcessor", partition.handle, 1, 0) == E_INVALIDARG


def test_flags_are_zero(partition: Partition) -> None:
    assert hresult("WHvCreateVirtualProcessor", partition.handle, 0, 1) == E_INVALIDARG
    assert hresult("WHvCancelRunVirtualProcessor", partition.handle, 0, 1) == E_INVALIDARG


def test_a_processor_that_does_not_exist(partition: Partition) -> None:
    exit = abi.WHV_RUN_VP_EXIT_CONTEXT()
    size = ctypes.sizeof(exit)
    names, values = (ctypes.c_int32 * 1)(0), (abi.WHV_REGISTER_VALUE * 1)()
    handle = partition.handle
    assert (
        hresult("WHvRunVirtualProcessor", handle, 5, ctypes.byref(exit), size) == VP_DOES_NOT_EXIST
    )
    for name in ("WHvGetVirtualProcessorRegisters", "WHvSetVirtualProcessorRegisters"):
        assert hresult(name, handle, 5, names, 1, values) == VP_DOES_NOT_EXIST
    assert hresult("WHvDeleteVirtualProcessor", handle, 5) == VP_DOES_NOT_EXIST
    assert hresult("WHvCancelRunVirtualProcessor", handle, 5, 0) == VP_DOES_NOT_EXIST


def test_a_deleted_processor_does_not_exist(partition: Partition) -> None:
    call("WHvDeleteVirtualProcessor", partition.handle, 0)
    assert hresult("WHvDeleteVirtualProcessor", partition.handle, 0) == VP_DOES_NOT_EXIST


# Memory


@pytest.mark.parametrize(
    ("offset", "address", "size"),
    [(1, 0, 0x1000), (0, 0x800, 0x1000), (0, 0, 0x801), (0, 0, 0)],
    ids=["source", "address", "size", "nothing"],
)
def test_memory_is_mapped_by_pages(
    partition: Partition, offset: int, address: int, size: int
) -> None:
    memory = Memory(0x2000)
    arguments = partition.handle, memory.address + offset, address, size, 7
    assert hresult("WHvMapGpaRange", *arguments) == E_INVALIDARG


def test_what_is_not_mapped_cannot_be_unmapped(partition: Partition) -> None:
    unmap = "WHvUnmapGpaRange", partition.handle, 0x10000, 0x1000
    assert hresult(*unmap) == GPA_RANGE_NOT_FOUND
    partition.map(0x10000, 0x1000)
    assert hresult(*unmap) == S_OK
    assert hresult(*unmap) == GPA_RANGE_NOT_FOUND


def test_the_dirty_pages_of_what_is_not_tracked(partition: Partition) -> None:
    partition.map(0, 0x1000)
    bitmap = (ctypes.c_uint64 * 1)()
    for address in (0, 0x10000):
        arguments = partition.handle, address, 0x1000, bitmap, 8
        assert hresult("WHvQueryGpaRangeDirtyBitmap", *arguments) == GPA_RANGE_NOT_FOUND


def test_reading_and_writing_guest_memory(partition: Partition) -> None:
    memory = partition.map(0x1000, 0x1000, abi.WHvMapGpaRangeFlagRead)
    memory[0xFF8] = b"12345678"
    controls, data = abi.WHV_ACCESS_GPA_CONTROLS(), ctypes.create_string_buffer(17)

    def access(name: str, address: int, size: int) -> int:
        return hresult(f"WHv{name}GpaRange", partition.handle, 0, address, controls, data, size)

    assert access("Read", 0x1FF8, 8) == S_OK
    assert data.raw[:8] == b"12345678"
    assert access("Read", 0x1000, 17) == E_INVALIDARG
    assert access("Read", 0x1FFC, 8) == E_ACCESSDENIED  # the second half is not mapped
    assert access("Write", 0x1000, 8) == E_ACCESSDENIED


def test_cpuid_output_wants_a_buffer(partition: Partition) -> None:
    name = "WHvGetVirtualProcessorCpuidOutput"
    assert hresult(name, partition.handle, 0, 1, 0, None) == E_POINTER


def test_one_process_has_one_partition_with_memory() -> None:
    with Partition() as one, Partition() as other:
        one.map(0, 0x2000)
        memory = Memory(0x1000)
        again = "WHvMapGpaRange", other.handle, memory.address, 0, 0x1000, RWX
        assert hresult(*again) == PARTITION_ALREADY_EXISTS
        assert other.register(abi.WHvX64RegisterRip) == 0xFFF0  # all else works
        call("WHvUnmapGpaRange", one.handle, 0, 0x1000)
        assert hresult(*again) == PARTITION_ALREADY_EXISTS
        call("WHvUnmapGpaRange", one.handle, 0x1000, 0x1000)
        assert hresult(*again) == S_OK
    with Partition() as next_one:
        next_one.map(0, 0x1000)
