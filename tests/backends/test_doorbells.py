"""A bus's doorbells: the same for a device's thread on every hypervisor, with exits or without."""

from __future__ import annotations

import asyncio
import os
import select
import threading
from typing import Any

import pytest
from vmm_arch.events import EventInUseError
from vmm_arch.x86_64.bus import Bus
from vmm_arch.x86_64.doorbell import Doorbell

CODE = 0x1000
BELL = 0xD0000000
RINGS = bytes.fromhex(
    "b005 e610"  # mov al, 5; out 0x10, al
    "b006 e610"
    "b007 e610"
    "f4"
)
RINGS_IN_MEMORY = bytes.fromhex("c705 000000d0 01000000 c705 000000d0 02000000 f4")
STRING = bytes.fromhex("be0010 b90300 ba1000 f3 6e f4")  # rep outsb to port 0x10, three bytes
PATIENCE = 60


class Log:
    def __init__(self) -> None:
        self.values: list[int] = []

    def read(self, offset: int, size: int) -> int:
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        self.values.append(value)


def start(arch: Any, vm: Any, code: bytes, entry: Any) -> None:
    vm.memory.write(CODE, code)
    arch.configure_system(vm, entry)
    arch.configure_vcpu(vm.vcpus[0], entry)


def test_a_thread_waits_for_a_port(arch: Any, memory: Any) -> None:
    bus, log = Bus(), Log()
    bus.attach_ports(range(0x10, 0x11), log)
    rung: list[int] = []

    def wait(event: int) -> None:
        while sum(rung) < 1:
            assert select.select([event], [], [], PATIENCE)[0]
            rung.append(os.eventfd_read(event))

    with arch.Vm(memory) as vm:
        start(arch, vm, RINGS, arch.RealMode(CODE))
        with bus.doorbells(vm, [Doorbell(port=0x10, size=1, value=6)]) as [event]:
            thread = threading.Thread(target=wait, args=(event,))
            thread.start()
            arch.serve(vm, bus, timeout=PATIENCE)
            thread.join()
    assert rung == [1]
    assert log.values == [5, 7]


def test_an_event_loop_waits_for_addresses(arch: Any, memory: Any) -> None:
    bus, log = Bus(), Log()
    bus.attach_memory(range(BELL, BELL + 0x1000), log)
    rung: list[str] = []

    async def wait(vm: Any) -> None:
        loop = asyncio.get_running_loop()
        both = asyncio.Event()

        def note(name: str, event: int) -> None:
            rung.append(f"{name} {os.eventfd_read(event)}")
            if len(rung) == 2:
                both.set()

        bells = [Doorbell(address=BELL, size=4, value=value) for value in (1, 2)]
        with bus.doorbells(vm, bells) as (first, second):
            loop.add_reader(first, note, "first", first)
            loop.add_reader(second, note, "second", second)
            await asyncio.to_thread(arch.serve, vm, bus, timeout=PATIENCE)
            await asyncio.wait_for(both.wait(), PATIENCE)
            loop.remove_reader(first)
            loop.remove_reader(second)

    with arch.Vm(memory) as vm:
        start(arch, vm, RINGS_IN_MEMORY, arch.Protected32(CODE))
        asyncio.run(wait(vm))
    assert sorted(rung) == ["first 1", "second 1"]
    assert log.values == []


def test_a_string_of_values_rings_for_each(arch: Any, memory: Any) -> None:
    bus = Bus()
    with arch.Vm(memory) as vm:
        start(arch, vm, STRING, arch.RealMode(CODE))
        with bus.doorbells(vm, [Doorbell(port=0x10)]) as [event]:
            arch.serve(vm, bus, timeout=PATIENCE)
            assert os.eventfd_read(event) == 3


def test_afterwards_writes_reach_the_device_again(arch: Any, memory: Any) -> None:
    bus, log = Bus(), Log()
    bus.attach_ports(range(0x10, 0x11), log)
    before = sorted(os.listdir("/proc/self/fd"))
    with arch.Vm(memory) as vm:
        start(arch, vm, RINGS, arch.RealMode(CODE))
        inside = sorted(os.listdir("/proc/self/fd"))
        with bus.doorbells(vm, [Doorbell(port=0x10)]):
            pass
        with (
            pytest.raises(EventInUseError, match="there is one already"),
            bus.doorbells(vm, [Doorbell(port=0x10), Doorbell(port=0x10, size=1)]),
        ):
            pass
        assert sorted(os.listdir("/proc/self/fd")) == inside
        arch.serve(vm, bus, timeout=PATIENCE)
        assert log.values == [5, 6, 7]
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_the_machine_may_be_closed_before(arch: Any, memory: Any) -> None:
    vm = arch.Vm(memory)
    with Bus().doorbells(vm, [Doorbell(port=0x10)]):
        vm.close()
