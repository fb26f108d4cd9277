"""What whp_x86_64 does without a hypervisor: its records, its errors, what it says is missing."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from requirements import require
from vmm_arch import whp
from vmm_arch.abi import whp_x86_64 as abi
from vmm_arch.whp.x86_64.registers import (
    FPU,
    LAPIC,
    MSRS,
    REGS,
    SREGS,
    Fpu,
    RegisterImage,
    Regs,
    Segment,
    Sregs,
    Table,
    segment_image,
)
from whp.build import PLATFORM, libraries

SEGMENT = {
    "base": "Base",
    "limit": "Limit",
    "selector": "Selector",
    "type": "SegmentType",
    "s": "NonSystemSegment",
    "dpl": "DescriptorPrivilegeLevel",
    "present": "Present",
    "avl": "Available",
    "l": "Long",
    "db": "Default",
    "g": "Granularity",
}


def test_a_segment_is_the_platforms_under_other_names() -> None:
    assert ctypes.sizeof(Segment) == ctypes.sizeof(abi.WHV_X64_SEGMENT_REGISTER) == 16
    for ours, theirs in SEGMENT.items():
        for value in (1, 2**64 - 1):
            record = abi.WHV_X64_SEGMENT_REGISTER()
            setattr(record, theirs, value)
            segment = Segment.from_buffer_copy(record)
            assert getattr(segment, ours) == getattr(record, theirs) != 0
            setattr(segment, ours, 0)
            assert bytes(segment) == bytes(16)


def test_a_table_is_the_platforms_under_other_names() -> None:
    record = abi.WHV_X64_TABLE_REGISTER(Limit=0x1234, Base=0x123456789ABCDEF0)
    table = Table.from_buffer_copy(record)
    assert (table.limit, table.base) == (0x1234, 0x123456789ABCDEF0)
    assert ctypes.sizeof(Table) == ctypes.sizeof(record) == 16


def test_fpu_state_is_the_platforms_under_other_names() -> None:
    control = abi.WHV_X64_FP_CONTROL_STATUS_REGISTER(
        FpControl=0x37F,
        FpStatus=0x3800,
        FpTag=0x81,
        LastFpOp=0x123,
        LastFpRip=0xFEDC_BA98_7654_3210,
    )
    sse = abi.WHV_X64_XMM_CONTROL_STATUS_REGISTER(
        LastFpRdp=0x1122334455667788, XmmStatusControl=0x1F80, XmmStatusControlMask=0xFFFF
    )
    fpu = Fpu.from_buffer_copy(bytes(control) + bytes(sse) + bytes(range(128)) + bytes(range(256)))
    assert (fpu.fcw, fpu.fsw, fpu.ftw, fpu.fop) == (0x37F, 0x3800, 0x81, 0x123)
    assert (fpu.fip, fpu.fdp) == (0xFEDC_BA98_7654_3210, 0x1122334455667788)
    assert (fpu.mxcsr, fpu.mxcsr_mask) == (0x1F80, 0xFFFF)
    assert bytes(fpu.st[1]) == bytes(range(16, 32))
    assert bytes(fpu.xmm[15]) == bytes(range(240, 256))
    assert FPU[2] == abi.WHvX64RegisterFpMmx0
    assert FPU[10] == abi.WHvX64RegisterXmm0


@pytest.mark.parametrize(("record", "names"), [(Regs, REGS), (Sregs, SREGS), (Fpu, FPU)])
def test_a_record_is_as_long_as_the_values_of_its_registers(record: type, names: list[int]) -> None:
    assert ctypes.sizeof(record) == 16 * len(names)


def test_records_have_their_registers_in_the_names_order() -> None:
    for record, names in ((Regs, REGS), (Sregs, SREGS)):
        called = {v: n for n, v in vars(abi).items() if n.startswith("WHvX64Register")}
        fields = [n for n, *_ in record._fields_ if not n.startswith("_")]
        short = [called[name].removeprefix("WHvX64Register").lower() for name in names]
        renamed = {"ldtr": "ldt", "gdtr": "gdt", "idtr": "idt", "apicbase": "apic_base"}
        assert fields == [renamed.get(name, name) for name in short]
        for i, field in enumerate(fields):
            assert getattr(record, field).offset == 16 * i


def test_msrs_and_the_local_apics_registers_are_distinct() -> None:
    assert len(set(MSRS.values())) == len(MSRS)
    assert LAPIC[0x20] == abi.WHvX64RegisterApicId
    assert LAPIC[0x350] == abi.WHvX64RegisterApicLvtLint0
    assert LAPIC[0x3F0] == abi.WHvX64RegisterApicSelfIpi


def test_an_image_is_copied_with_its_own_values() -> None:
    image = RegisterImage({1: 2, 3: segment_image(8, 0x1000, 0xFFFF, 0x9B)})
    copy = RegisterImage.from_buffer_copy(image)
    copy[1] = 5
    copy[3].Segment.Base = 0x2000
    assert (image[1].Reg64, image[3].Segment.Base) == (2, 0x1000)
    assert (copy[1].Reg64, copy[3].Segment.Base, copy[3].Segment.Selector) == (5, 0x2000, 8)
    assert 3 in copy
    assert 2 not in copy
    both = image | RegisterImage({7: 8})
    assert [*both.names] == [1, 3, 7]
    assert both[3].Segment.Limit == 0xFFFF
    assert [*both.without(frozenset({3})).names] == [1, 7]


def test_an_image_without_some_registers_keeps_the_values_of_the_others() -> None:
    image = RegisterImage({name: 10 * name for name in range(1, 9)})
    for gone in ({1}, {8}, {4, 5}, {2, 4, 8}, set(range(1, 9))):
        for _ in range(2):  # the second time it is known where the others lie
            rest = image.without(frozenset(gone))
            found = {name: rest[name].Reg64 for name in rest.names}
            assert found == {name: 10 * name for name in range(1, 9) if name not in gone}


@pytest.mark.parametrize(
    ("result", "operation", "said"),
    [
        (
            0xC0351000,
            "WHvGetCapability",
            "ERROR_HV_NOT_PRESENT: no hypervisor is running: enable the",
        ),
        (0x80370302, "WHvSetPartitionProperty", "WHV_E_UNKNOWN_PROPERTY: this version of Windows"),
        (0x80070057, "WHvMapGpaRange", "E_INVALIDARG: the memory is beyond the processor's"),
        (0x80370309, "WHvSetVirtualProcessorRegisters", "WHV_E_INVALID_VP_REGISTER_NAME: this"),
        (0x8BADF00D, "WHvRunVirtualProcessor", "0x8badf00d: see winerror.h"),
    ],
)
def test_an_hresult_is_named_with_its_cause(result: int, operation: str, said: str) -> None:
    error = whp.refused(operation, result - (1 << 32))
    assert str(error).startswith(f"{operation}: {said}")


def python(code: str, **environment: str) -> str:
    """What a new interpreter prints: which library is loaded is decided once in each."""
    clean = {k: v for k, v in os.environ.items() if k != whp.VARIABLE} | environment
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=clean, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


ASK = "from vmm_arch import whp_x86_64 as arch; print(arch.probe())"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has a platform")
def test_where_there_is_no_windows_it_is_said_so() -> None:
    said = python(ASK)
    assert "NO   WinHvPlatform.dll" in said
    assert "the Windows Hypervisor Platform is part of Windows; this is linux" in said


def test_a_library_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "WinHvPlatform.dll"
    assert f"load {path}: ENOENT: cannot be loaded" in python(ASK, **{whp.VARIABLE: str(path)})


def test_a_library_that_is_something_else_is_named(tmp_path: Path) -> None:
    other = Path(ctypes.util.__file__)
    assert "cannot be loaded" in python(ASK, **{whp.VARIABLE: str(other)})


@pytest.mark.parametrize("name", ["./WinHvPlatform.dll", "WinHvPlatform.dll"])
def test_a_relative_path_is_one_from_the_current_folder(tmp_path: Path, name: str) -> None:
    """A name alone is what a loader looks for elsewhere."""
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")
    (tmp_path / "WinHvPlatform.dll").symlink_to(libraries() / PLATFORM)
    load = f"import os; os.chdir({str(tmp_path)!r}); from vmm_arch import whp; whp.load({name!r});"
    assert "yes  WinHvPlatform.dll" in python(load + ASK)
    assert f"load {tmp_path}/missing.dll: ENOENT" in python(load.replace(name, "missing.dll") + ASK)


NO_MACHINE = """
from vmm_arch import whp_x86_64 as arch
memory = arch.GuestMemory(0x1000)
try:
    arch.Vm(memory)
except arch.HypervisorUnavailableError as error:
    print(error)
memory.close()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has a platform")
def test_a_machine_without_a_hypervisor_gives_its_memory_back() -> None:
    assert "part of Windows" in python(NO_MACHINE)
