"""Interrupt controllers on every backend: lines raised by the host, interrupts among vCPUs.

KVM has an I/O APIC; WHP has none, and is given the one of ``vmm_arch.x86_64.platform.ioapic``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from guests.assemble import assemble
from vmm_arch.exits import Kicked
from vmm_arch.selftest.x86_64.harness import AnyBackend
from vmm_arch.x86_64.entry import Protected32
from vmm_arch.x86_64.exits import Exit, IoOut
from vmm_arch.x86_64.platform.memory_map import GuestMemory

CODE = 0x10000
EDGE, LEVEL = 4, 9
"""The lines that the guest asks for, edge- and level-triggered."""
PATIENCE = 20
"""Seconds after which a guest that says nothing is stopped."""

BEGINNING = """
    .intel_syntax noprefix
    .code32
    .macro gate vector, handler
    mov eax, offset \\handler
    mov edx, eax
    and eax, 0xffff
    or eax, 0x10 << 16                  // the code segment
    mov [0x6000 + 8 * \\vector], eax
    and edx, 0xffff0000
    or edx, 0x8e00                      // an interrupt gate
    mov [0x6000 + 8 * \\vector + 4], edx
    .endm
    .macro handler name, port
\\name:
    out \\port, al
    mov dword ptr [ebx + 0xb0], 0       // end of interrupt
    mov edx, [esp]                      // not by IRET, which no KVM in software can in this mode
    mov [esp + 8], edx
    add esp, 8
    sti
    ret
    .endm
    .macro program line, low            // an entry of the I/O APIC: to APIC id 0
    mov dword ptr [esi], 0x11 + 2 * \\line
    mov dword ptr [esi + 0x10], 0
    mov dword ptr [esi], 0x10 + 2 * \\line
    mov dword ptr [esi + 0x10], \\low
    .endm

    mov esp, 0x8000
    mov ebx, 0xfee00000
    mov esi, 0xfec00000
    mov dword ptr [ebx + 0xf0], 0x1ff       // switches the local APIC on
    mov dword ptr [ebx + 0x350], 0x10000    // nothing comes from an 8259
    gate 0x30, edge
    gate 0x31, level
    gate 0x32, itself
    lidt [table]
"""
HANDLERS = """
    handler edge, 0x11
    handler level, 0x12
    handler itself, 0x13
table:
    .word 0x7ff
    .long 0x6000
"""
LINES = """
    program 4, 0x30
    program 9, 0x8031
    mov dword ptr [esi], 0x22
    mov eax, [esi + 0x10]
    out 0x10, eax                       // what the I/O APIC says of line 9
    sti
wait_:
    hlt
    jmp wait_
"""
AMONG = """
    mov dword ptr [ebx + 0x310], 1 << 24
    mov dword ptr [ebx + 0x300], 0x4500         // INIT to APIC id 1
    mov dword ptr [ebx + 0x300], 0x4600 | 0x11  // SIPI to the page 0x11000
until:
    pause
    cmp dword ptr [0x3000], 0
    je until
    mov dword ptr [ebx + 0x300], 0x4400         // an NMI for it
    mov dword ptr [ebx + 0x300], 0x44032        // and vector 0x32 for oneself
    sti
wait_:
    hlt
    jmp wait_
"""
SECONDARY = """
    .org 0x1000                         // 0x11000; here it is 0x1100:0
    .code16
    xor ax, ax
    mov ds, ax
    mov ss, ax
    mov sp, 0x7000
    mov word ptr [8], 0x40              // the vector of NMIs
    mov word ptr [10], 0x1100
    mov byte ptr [0x3000], 1
sleep:
    hlt
    jmp sleep
    .org 0x1040
    out 0x14, al
    iret
"""


@contextmanager
def machine(arch: AnyBackend, folder: Path, source: str, vcpus: int = 1) -> Iterator[Any]:
    """A machine with interrupt controllers, about to run a guest."""
    file = folder / "guest.S"
    file.write_text(source)
    entry = Protected32(CODE)
    with GuestMemory(0x100000) as memory, arch.Vm(memory, vcpus=vcpus, irqchip=True) as vm:
        memory.write(CODE, assemble(file, CODE))
        arch.configure_system(vm, entry)
        for vcpu in vm.vcpus:
            arch.configure_vcpu(vcpu, entry)
        yield vm


def within(seconds: float, vcpu: Any) -> Exit:
    """The next exit; Kicked if there is none in this time."""
    timer = threading.Timer(seconds, vcpu.kick)
    timer.start()
    exit: Exit = vcpu.run()
    timer.cancel()
    return exit


def port_of(exit: Exit) -> int:
    assert isinstance(exit, IoOut), exit
    return exit.port


@pytest.fixture
def lines(arch: AnyBackend, tmp_path: Path) -> Iterator[Any]:
    """A machine whose guest has programmed the I/O APIC and waits."""
    with machine(arch, tmp_path, BEGINNING + LINES + HANDLERS) as vm:
        ready = within(PATIENCE, vm.vcpus[0])
        assert repr(ready) == "IoOut(port=0x10, data=b'1\\x80\\x00\\x00', size=4)"
        yield vm


def test_an_edge_is_delivered_once(lines: Any) -> None:
    vcpu = lines.vcpus[0]
    for _ in range(3):
        lines.set_irq_line(EDGE, True)
        assert port_of(within(PATIENCE, vcpu)) == 0x11
        assert isinstance(within(0.1, vcpu), Kicked)
        lines.set_irq_line(EDGE, False)
        assert isinstance(within(0.1, vcpu), Kicked)


def test_a_level_is_delivered_again_after_each_end_until_it_is_low(lines: Any) -> None:
    vcpu = lines.vcpus[0]
    lines.set_irq_line(LEVEL, True)
    for _ in range(3):
        assert port_of(within(PATIENCE, vcpu)) == 0x12
    lines.set_irq_line(LEVEL, False)
    last = within(0.1, vcpu)
    if not isinstance(last, Kicked):  # one that was on its way
        assert port_of(last) == 0x12
        assert isinstance(within(0.1, vcpu), Kicked)


def test_a_line_wakes_a_vcpu_that_halts(lines: Any) -> None:
    """Raised by another thread, as a device does."""
    vcpu = lines.vcpus[0]
    raises: Callable[[], None] = lambda: lines.set_irq_line(EDGE, True)  # noqa: E731
    threading.Timer(0.1, raises).start()
    assert port_of(within(PATIENCE, vcpu)) == 0x11


def test_two_lines_at_once_are_both_delivered(lines: Any) -> None:
    vcpu = lines.vcpus[0]
    lines.set_irq_line(EDGE, True)
    lines.set_irq_line(LEVEL, True)
    assert port_of(within(PATIENCE, vcpu)) == 0x12  # the higher vector comes first
    lines.set_irq_line(LEVEL, False)
    came = [port_of(within(PATIENCE, vcpu))]
    if came == [0x12]:  # it was on its way
        came = [port_of(within(PATIENCE, vcpu))]
    assert came == [0x11]


def test_what_vcpus_send_each_other(arch: AnyBackend, tmp_path: Path) -> None:
    """INIT and SIPI start the second, an NMI reaches it, and a vector reaches the first itself."""
    source = BEGINNING + AMONG + HANDLERS + SECONDARY
    with machine(arch, tmp_path, source, vcpus=2) as vm, ThreadPoolExecutor(2) as threads:
        exits = threads.map(lambda vcpu: within(PATIENCE, vcpu), vm.vcpus)
        assert [port_of(exit) for exit in exits] == [0x13, 0x14]
