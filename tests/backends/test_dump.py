"""What is said of a vCPU whose guest ended badly, on every backend."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from vmm_arch.exits import Halt, Shutdown, SingleStep
from vmm_arch.memory import GuestMemory as Exact
from vmm_arch.memory import Region
from vmm_arch.selftest.x86_64.harness import AnyBackend
from vmm_arch.x86_64.dump import AFTER_INIT, describe, dump
from vmm_arch.x86_64.entry import Entry, Long64, RealMode
from vmm_arch.x86_64.events import Events
from vmm_arch.x86_64.paging import read_linear, walk
from vmm_arch.x86_64.platform.memory_map import GuestMemory

Start = Callable[..., Any]

# A line of ten distinct bytes: mov rax, 0x1122334455667788
DISTINCT = bytes.fromhex("48 b8 88 77 66 55 44 33 22 11")


@pytest.fixture
def start(arch: AnyBackend) -> Iterator[Start]:
    """A vCPU, and the memory that it runs in, with code at an address."""
    opened: list[Any] = []

    def make(code: bytes, entry: Entry, irqchip: bool = False) -> tuple[Any, GuestMemory]:
        memory = arch.GuestMemory(4 << 20)
        opened.append(memory)
        vm = arch.Vm(memory, irqchip=irqchip)
        opened.append(vm)
        memory.write(entry.rip if isinstance(entry, Long64) else entry.address, code)
        arch.configure_system(vm, entry)
        arch.configure_vcpu(vm.vcpus[0], entry)
        return vm.vcpus[0], memory

    yield make
    for thing in reversed(opened):
        thing.close()


def test_code_is_shown_on_both_sides_of_rip_and_of_a_pages_end(start: Start) -> None:
    vcpu, memory = start(DISTINCT + b"\xf4" + DISTINCT, Long64(0x200FF8, rsp=0x8000))
    assert isinstance(vcpu.run(), Halt)
    shown = dump(vcpu, memory)
    rip = vcpu.get_regs().rip - 0x200FF8
    content = DISTINCT + b"\xf4" + DISTINCT + bytes(16)
    before = (bytes(16) + content)[rip : rip + 16]
    assert f"before rip: {before.hex(' ')}\n" in shown
    assert f"at rip: {content[rip : rip + 16].hex(' ')}\n" in shown


def test_everything_is_shown(start: Start) -> None:
    vcpu, memory = start(b"\xf4", Long64(0x200000, rsp=0x8000))
    memory.write(0x8000, struct.pack("<2Q", 0x0123456789ABCDEF, 0xFEDCBA9876543210))
    assert isinstance(vcpu.run(), Halt)
    shown = dump(vcpu, memory)
    assert shown.startswith("vCPU 0:\n")
    for text in (
        "  gdt      base 0000000000000500 limit 0000002f",
        "  idt      base 0000000000000000",
        "dr7 0000000000000400",
        "  pending: nothing",
        "  at rsp: 0123456789abcdef fedcba9876543210 0000000000000000",
        f"  rip {vcpu.get_regs().rip:016x}: physical {vcpu.get_regs().rip:#x}",
        "    PML4[0] at 0x9000: 000000000000a0",
        "    PD[1] at 0xb008: 00000000002000",
    ):
        assert text in shown, shown
    assert AFTER_INIT not in shown


def test_real_mode_has_segments(start: Start) -> None:
    vcpu, memory = start(b"\xf4\x90\x90", RealMode(0x1000))
    assert isinstance(vcpu.run(), Halt)
    shown = dump(vcpu, memory)
    assert f"at rip: {memory.read(vcpu.get_regs().rip, 16).hex(' ')}\n" in shown
    assert "PML4" not in shown


def test_what_a_vcpu_waits_for_is_said(start: Start) -> None:
    vcpu, memory = start(b"\xfa\xf4", RealMode(0x1000), irqchip=True)
    vcpu.kick()
    vcpu.run()
    vcpu.inject_nmi()
    assert vcpu.get_events().nmi
    assert "  pending: NMI\n" in dump(vcpu, memory) + "\n"


def test_a_vcpu_that_cannot_be_asked_says_why(start: Start) -> None:
    vcpu, memory = start(b"\xe4\x10", RealMode(0x1000))
    vcpu.run()  # a read that nobody answers
    assert "vCPU 0: no registers: vCPU 0: the guest waits for an answer" in dump(vcpu, memory)


def test_a_triple_fault_says_where_or_that_it_cannot_be_said(start: Start) -> None:
    """Of AMD's processors the nested machine has one: they are reset."""
    vcpu, memory = start(b"\x0f\x0b", Long64(0x200000, rsp=0x8000))
    assert isinstance(vcpu.run(), Shutdown)
    shown = dump(vcpu, memory)
    assert "at rip: 0f 0b" in shown or AFTER_INIT in shown


def test_stepping(start: Start, arch: AnyBackend) -> None:
    """Each instruction is an exit of its own, until that is not wanted."""
    vcpu, _ = start(b"\x90\x90\x90\x90\xf4", RealMode(0x1000))
    if "step" in arch.UNSUPPORTED:
        with pytest.raises(arch.HypervisorUnavailableError, match="step"):  # type: ignore[attr-defined]
            vcpu.step(True)
        return
    vcpu.step(True)
    for rip in (0x1001, 0x1002):
        match vcpu.run():
            case SingleStep(pc=where):
                assert where == rip == vcpu.get_regs().rip
            case other:
                pytest.fail(f"not a step: {other!r}")
    vcpu.step(False)
    assert isinstance(vcpu.run(), Halt)


def test_reset_ends_stepping(start: Start, arch: AnyBackend) -> None:
    vcpu, _ = start(b"\x90\x90\xf4", RealMode(0x1000))
    if "step" not in arch.UNSUPPORTED:
        vcpu.step(True)
    vcpu.run()
    arch.reset_vcpu(vcpu, RealMode(0x1000))
    assert isinstance(vcpu.run(), Halt)


def test_debug_registers_can_be_read(start: Start) -> None:
    vcpu, _ = start(
        # mov eax, 0x1234; mov dr1, eax; hlt
        bytes.fromhex("66 b8 34 12 00 00 0f 23 c8 f4"),
        RealMode(0x1000),
    )
    assert isinstance(vcpu.run(), Halt)
    debug = vcpu.get_debugregs()
    assert debug["dr1"] == 0x1234
    assert list(debug) == ["dr0", "dr1", "dr2", "dr3", "dr6", "dr7"]


def test_events_can_be_read_aloud() -> None:
    assert str(Events()) == "nothing"
    assert str(Events(14, 0x30, True, True, True)) == (
        "exception 14, interrupt 0x30, NMI, NMIs masked, interrupt shadow"
    )


# Page tables


def test_a_walk_ends_where_the_hypervisors_translation_does(start: Start) -> None:
    """Through tables of the guest's own: a page, a large page, and what is not mapped."""
    vcpu, memory = start(b"\xf4", Long64(0x200000, rsp=0x8000))
    pml4, pdpt, pd, pt = 0x100000, 0x101000, 0x102000, 0x103000
    memory.write(pml4, struct.pack("<Q", pdpt | 3))
    memory.write(pml4 + 511 * 8, struct.pack("<Q", pdpt | 3))
    memory.write(pdpt, struct.pack("<Q", pd | 3))
    memory.write(pdpt + 510 * 8, struct.pack("<Q", pd | 3))
    memory.write(pd, struct.pack("<3Q", pt | 3, 0x200083, 0))
    memory.write(pt, struct.pack("<3Q", 0x5003, 0, 0x7003))
    sregs = vcpu.get_sregs()
    sregs.cr3 = pml4
    vcpu.set_sregs(sregs)
    for address, physical in (
        (0x123, 0x5123),
        (0x1000, None),
        (0x2FFF, 0x7FFF),
        (0x212345, 0x212345),
        (0x400000, None),
        (0xFFFFFFFF80000123, 0x5123),
        (0xFFFFFFFF80212345, 0x212345),
        (0x40000000, None),
    ):
        found = walk(memory, sregs, address)
        assert found.physical == physical, hex(address)
        assert vcpu.translate(address) == physical, hex(address)
    assert walk(memory, sregs, 0x8000_0000_0000).steps == ()  # not canonical
    memory.write(0x5FFE, b"ab")
    assert read_linear(memory, sregs, 0xFFE, 4) == [ord("a"), ord("b"), None, None]


def registers(**values: int) -> Any:
    return SimpleNamespace(**{"cr0": 1 << 31, "cr3": 0x1000, "cr4": 0, "efer": 0} | values)


@pytest.mark.parametrize(
    ("control", "tables", "linear", "physical", "names"),
    [
        ({}, {0x1000 + 4: 0x2003, 0x2000 + 8: 0x5003}, 0x402123, 0x5123, ["PD", "PT"]),
        ({"cr4": 0x10}, {0x1000 + 4: 0x00C00083}, 0x412345, 0xC12345, ["PD"]),
        # without PSE the bit says nothing
        ({}, {0x1000 + 4: 0x2083, 0x2000 + 8: 0x5003}, 0x402123, 0x5123, ["PD", "PT"]),
        # PSE-36: bit 13 is bit 32 of the address
        ({"cr4": 0x10}, {0x1000 + 4: 0x00C02083}, 0x412345, 0x1_00C1_2345, ["PD"]),
        (
            {"cr4": 0x20, "cr3": 0x1020},
            {0x1020: 0x2001, 0x2008: 0x00400083},
            0x212345,
            0x412345,
            ["PDPT", "PD"],
        ),
        (
            {"cr4": 0x1020, "efer": 0x400},
            {0x1008: 0x2003, 0x2000: 0x3003, 0x3000: 0x4000_0083},
            1 << 48 | 0x12345678,
            0x4000_0000 | 0x12345678,
            ["PML5", "PML4", "PDPT"],
        ),
        ({"cr0": 0}, {}, 0x1234, 0x1234, []),
    ],
    ids=["32-bit", "4 MiB", "no PSE", "PSE-36", "PAE", "five levels", "no paging"],
)
def test_every_kind_of_page_table(
    control: dict[str, int],
    tables: dict[int, int],
    linear: int,
    physical: int,
    names: list[str],
) -> None:
    with GuestMemory(0x10000) as memory:
        for address, entry in tables.items():
            memory.write(address, entry.to_bytes(8, "little"))
        found = walk(memory, registers(**control), linear)
    assert found.physical == physical
    assert [step.table for step in found.steps] == names
    assert str(found) == f"physical {physical:#x}"


def test_tables_where_there_is_no_memory() -> None:
    with Exact([Region(0x10000, 0x1000)]) as memory:
        found = walk(memory, registers(cr4=0x20, efer=0x400), 0x1234)
        assert found.physical is None
        assert str(found.steps[0]) == "PML4[0] at 0x1000: no memory"
        assert str(found) == "not mapped"


def test_a_dump_of_nothing_that_is_mapped(start: Start) -> None:
    vcpu, memory = start(b"\xf4", Long64(0x200000, rsp=0x8000))
    sregs, regs = vcpu.get_sregs(), vcpu.get_regs()
    sregs.cr3 = 0x3FF000  # empty
    sregs.cr2 = 0xDEAD000
    shown = "\n".join(describe(regs, sregs, memory))
    assert "at rip: 0x200000 is not mapped or has no memory" in shown
    assert "at rsp: ???????????????? ????" in shown
    assert "  cr2 000000000dead000: not mapped\n    PML4[0] at 0x3ff000: 0000000000000000" in shown
