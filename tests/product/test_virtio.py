"""Virtio: the transport, its queues and the block device, driven with Linux' numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from struct import pack
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from virtio_driver import BUFFERS, READY, Driver
from vmm_arch.abi import devices_x86_64 as abi
from vmm_arch.devices.bus import Bus
from vmm_arch.devices.virtio.block import SECTOR, VirtioBlock
from vmm_arch.devices.virtio.device import VirtioDevice
from vmm_arch.devices.virtio.mmio import REGISTERS, TRANSPORT_FEATURES, VirtioMmio
from vmm_arch.devices.virtio.queue import Chain, Queue
from vmm_arch.errors import StateError
from vmm_arch.exits import MmioWrite
from vmm_arch.memory import GuestMemory

VERSION_1 = 1 << abi.VIRTIO_F_VERSION_1
SIZE = 1 << 20
DISK = bytes(range(256)) * 2 * 8
"""Eight sectors, and no two neighbouring ones alike in order of their halves."""


class Upper(VirtioDevice):
    """Writes what it reads, in upper case; the second queue's buffers wait for :meth:`tell`."""

    DEVICE_TYPE = 63
    QUEUES: ClassVar[tuple[int, ...]] = (64, 64)

    def handle(self, queue: int, chain: Chain) -> None:
        data = chain.read(chain.readable)
        if data == b"raise":
            raise ArithmeticError("a fault of the device")
        chain.write(data.upper())

    def notified(self, queue: int) -> None:
        if queue == 0:
            super().notified(queue)

    def tell(self, data: bytes) -> bool:
        """Send the driver something, if it has a buffer for it."""
        with self.transport.lock:
            queue = self.transport.queues[1]
            chain = queue.pop()
            if chain is None:
                return False
            chain.write(data)
            queue.push(chain)
            self.transport.signal(queue)
            return True


class Machine:
    """A device with its driver, and the changes of its interrupt line."""

    def __init__(self, device: VirtioDevice, memory: GuestMemory) -> None:
        self.line: list[bool] = []
        self.transport = VirtioMmio(memory, device, self.line.append)
        self.driver = Driver(self.transport, memory)


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    with GuestMemory(SIZE) as memory:
        yield memory


@pytest.fixture
def upper(memory: GuestMemory) -> Machine:
    machine = Machine(Upper(), memory)
    machine.driver.begin()
    return machine


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(DISK + b"less than a sector")
    return path


@pytest.fixture
def block(disk: Path, memory: GuestMemory) -> Iterator[Machine]:
    with VirtioBlock(disk, serial="a disk") as device:
        machine = Machine(device, memory)
        machine.driver.begin()
        yield machine


def request(machine: Machine, kind: int, sector: int = 0, data: bytes = b"", room: int = 0) -> Any:
    """A request of the block device: its status, and the data that was read."""
    header = pack("<IIQ", kind, 0, sector)
    answer = machine.driver.ask(header + data, room + 1)
    assert len(answer) == room + 1
    return answer[-1], answer[:-1]


class TestTransport:
    def test_what_is_offered_has_linuxs_names(self) -> None:
        bits = {
            abi.VIRTIO_F_VERSION_1,
            abi.VIRTIO_RING_F_INDIRECT_DESC,
            abi.VIRTIO_RING_F_EVENT_IDX,
        }
        assert sum(1 << bit for bit in bits) == TRANSPORT_FEATURES

    def test_a_driver_that_asks_for_too_much_is_told(self, memory: GuestMemory) -> None:
        driver = Machine(Upper(), memory).driver
        assert driver.accept(driver.offered)
        assert not driver.accept(driver.offered | 1 << 40)
        assert not driver.accept(driver.offered & ~VERSION_1)  # of before the standard
        assert driver.accept(VERSION_1)

    def test_a_buffer_goes_back_with_an_interrupt(self, upper: Machine) -> None:
        assert upper.driver.ask(b"a buffer", 20) == b"A BUFFER"
        assert upper.line[-1:] == [True]
        assert upper.driver.interrupts() == abi.VIRTIO_MMIO_INT_VRING
        assert upper.line[-1:] == [False]

    @pytest.mark.parametrize("features", [VERSION_1, TRANSPORT_FEATURES])
    def test_queues_go_round(self, memory: GuestMemory, features: int) -> None:
        machine = Machine(Upper(), memory)
        machine.driver.begin(features, size=4)
        for number in range(0x10010):
            machine.driver._free = BUFFERS
            assert machine.driver.ask(b"%d" % number, 8) == b"%d" % number

    def test_a_buffer_may_be_too_small(self, upper: Machine) -> None:
        assert upper.driver.ask(b"a buffer", 3) == b"A B"
        assert upper.driver.ask(b"a buffer", 0) == b""

    def test_no_interrupt_for_a_driver_that_polls(self, memory: GuestMemory) -> None:
        machine = Machine(Upper(), memory)
        machine.driver.begin(VERSION_1)
        ring = machine.driver.rings[0]
        memory.write(ring.available, pack("<H", abi.VRING_AVAIL_F_NO_INTERRUPT))
        machine.driver.ask(b"x", 1)
        assert machine.driver.interrupts() == 0
        memory.write(ring.available, pack("<H", 0))
        machine.driver.ask(b"x", 1)
        assert machine.driver.interrupts() == abi.VIRTIO_MMIO_INT_VRING

    def test_with_event_indices_the_driver_says_which_buffer_interrupts(
        self, upper: Machine, memory: GuestMemory
    ) -> None:
        ring = upper.driver.rings[0]
        memory.write(ring.available + 4 + 2 * ring.size, pack("<H", 2))  # used_event
        interrupts = []
        for _ in range(4):
            upper.driver.ask(b"x", 1)
            interrupts.append(upper.driver.interrupts())
        assert interrupts == [0, 0, abi.VIRTIO_MMIO_INT_VRING, 0]
        avail_event = memory.read(ring.used + 4 + 8 * ring.size, 2)
        assert avail_event == pack("<H", 4)  # notify of the next one

    def test_a_buffer_may_wait_for_something_to_tell(self, upper: Machine) -> None:
        device = upper.transport.device
        assert isinstance(device, Upper)
        assert not device.tell(b"too early")
        room = upper.driver.place(8)
        upper.driver.offer(1, [(room, 8, True)])
        upper.driver.notify(1)
        assert upper.driver.used(1) == []
        assert device.tell(b"told")
        assert upper.driver.used(1) == [(0, 4)]
        assert upper.driver.memory.read(room, 4) == b"told"

    def test_a_change_of_the_configuration_is_told(self, upper: Machine) -> None:
        before = upper.driver.get(abi.VIRTIO_MMIO_CONFIG_GENERATION)
        upper.transport.config_changed()
        assert upper.driver.get(abi.VIRTIO_MMIO_CONFIG_GENERATION) != before
        assert upper.driver.interrupts() == abi.VIRTIO_MMIO_INT_CONFIG

    def test_an_interrupt_of_another_kind_is_an_edge_of_its_own(self, upper: Machine) -> None:
        upper.driver.ask(b"x", 1)
        upper.transport.config_changed()
        upper.line.clear()
        upper.driver.put(abi.VIRTIO_MMIO_INTERRUPT_ACK, abi.VIRTIO_MMIO_INT_VRING)
        assert upper.line == [False, True]
        upper.driver.put(abi.VIRTIO_MMIO_INTERRUPT_ACK, abi.VIRTIO_MMIO_INT_CONFIG)
        assert upper.line == [False, True, False]

    def test_a_reset_forgets_everything(self, upper: Machine, memory: GuestMemory) -> None:
        upper.driver.ask(b"x", 1)
        upper.driver.put(abi.VIRTIO_MMIO_STATUS, 0)
        new = VirtioMmio(memory, Upper())
        assert upper.transport.save() == new.save()
        assert upper.line[-1] is False
        upper.driver.begin()
        assert upper.driver.ask(b"again", 5) == b"AGAIN"

    def test_a_fault_of_the_device_is_raised_with_its_place(self, upper: Machine) -> None:
        bus = Bus()
        bus.attach_memory(range(0xD0000000, 0xD0000000 + REGISTERS), upper.transport)
        address = upper.driver.place(5, b"raise")
        upper.driver.offer(0, [(address, 5, False)])
        exit = MmioWrite()
        exit.address, exit.data = 0xD0000000 + abi.VIRTIO_MMIO_QUEUE_NOTIFY, bytes(4)
        with pytest.raises(ArithmeticError) as raised:
            bus.handle(exit)
        assert "Upper was handling its queue 0." in raised.value.__notes__


class TestFraming:
    @given(
        data=st.binary(max_size=60),
        room=st.integers(0, 70),
        cuts=st.lists(st.integers(0, 70), max_size=10),
        indirect=st.booleans(),
    )
    def test_descriptors_are_no_part_of_the_meaning(
        self, data: bytes, room: int, cuts: list[int], indirect: bool
    ) -> None:
        with GuestMemory(SIZE) as memory:
            machine = Machine(Upper(), memory)
            machine.driver.begin(size=64)
            if not data and not room:
                room = 1
            answer = machine.driver.ask(data, room, cuts=cuts, indirect=indirect)
            if data != b"raise":
                assert answer == data.upper()[:room]


LOOP = [(BUFFERS, 4, abi.VRING_DESC_F_NEXT, 1), (BUFFERS, 4, abi.VRING_DESC_F_NEXT, 0)]
MISTAKES: dict[str, tuple[list[tuple[int, int, int, int]], str]] = {
    "loop": (LOOP, "the chain of descriptor 0 does not end"),
    "beyond the table": (
        [(BUFFERS, 4, abi.VRING_DESC_F_NEXT, 99)],
        "descriptor 99 is beyond a table of 16",
    ),
    "outside memory": ([(SIZE, 4, 0, 0)], "0x100000"),
    "half outside memory": ([(SIZE - 2, 4, 0, 0)], "0xffffe"),
    "wraps around": ([(2**64 - 2, 4, 0, 0)], "0xfffffffffffffffe"),
    "read after write": (
        [(BUFFERS, 4, abi.VRING_DESC_F_WRITE | abi.VRING_DESC_F_NEXT, 1), (BUFFERS, 4, 0, 0)],
        "descriptor 1: to be read, after some to be written",
    ),
    "odd indirect table": (
        [(BUFFERS, 24, abi.VRING_DESC_F_INDIRECT, 0)],
        "descriptor 0: an indirect table of 24 bytes",
    ),
    "empty indirect table": (
        [(BUFFERS, 0, abi.VRING_DESC_F_INDIRECT, 0)],
        "descriptor 0: an indirect table of 0 bytes",
    ),
    "indirect and more": (
        [(BUFFERS, 16, abi.VRING_DESC_F_INDIRECT | abi.VRING_DESC_F_NEXT, 1), (BUFFERS, 4, 0, 0)],
        "descriptor 0: an indirect table cannot be there",
    ),
}


class TestMistakesOfTheDriver:
    @pytest.mark.parametrize("name", MISTAKES)
    def test_the_device_needs_a_reset(self, name: str, upper: Machine, memory: GuestMemory) -> None:
        descriptors, problem = MISTAKES[name]
        driver = upper.driver
        for number, descriptor in enumerate(descriptors):
            memory.write(driver.rings[0].descriptors + 16 * number, pack("<QIHH", *descriptor))
        driver.publish(0, 0)
        driver.notify(0)
        assert problem in (upper.transport.problem or "")
        assert driver.get(abi.VIRTIO_MMIO_STATUS) == READY | abi.VIRTIO_CONFIG_S_NEEDS_RESET
        assert driver.interrupts() == abi.VIRTIO_MMIO_INT_CONFIG
        driver.notify(0)  # it does nothing until then
        assert driver.used(0) == []
        driver.begin()
        assert upper.transport.problem is None
        assert driver.ask(b"again", 5) == b"AGAIN"

    def test_an_indirect_table_has_no_other_in_it(
        self, upper: Machine, memory: GuestMemory
    ) -> None:
        entry = pack("<QIHH", BUFFERS, 16, abi.VRING_DESC_F_INDIRECT, 0)
        memory.write(upper.driver.rings[0].descriptors, entry)
        memory.write(BUFFERS, entry)
        upper.driver.publish(0, 0)
        upper.driver.notify(0)
        assert "an indirect table cannot be there" in (upper.transport.problem or "")

    def test_more_chains_than_descriptors(self, upper: Machine, memory: GuestMemory) -> None:
        memory.write(upper.driver.rings[0].available + 2, pack("<H", 17))
        upper.driver.notify(0)
        assert upper.transport.problem == "queue 0: 17 chains wait in a queue of 16"

    @pytest.mark.parametrize(
        ("register", "value", "problem"),
        [
            (abi.VIRTIO_MMIO_QUEUE_NUM, 0, "its size is 0, not a power of two up to 64"),
            (abi.VIRTIO_MMIO_QUEUE_NUM, 12, "its size is 12"),
            (abi.VIRTIO_MMIO_QUEUE_NUM, 128, "its size is 128"),
            (abi.VIRTIO_MMIO_QUEUE_DESC_LOW, 8, "its descriptor table at 0x8 is not at"),
            (abi.VIRTIO_MMIO_QUEUE_AVAIL_LOW, 1, "its available ring at 0x1"),
            (abi.VIRTIO_MMIO_QUEUE_USED_LOW, 2, "its used ring at 0x2"),
        ],
    )
    def test_a_queue_that_cannot_be(
        self, register: int, value: int, problem: str, memory: GuestMemory
    ) -> None:
        machine = Machine(Upper(), memory)
        machine.driver.accept(machine.driver.offered)
        machine.driver.put(register, value)
        machine.driver.put(abi.VIRTIO_MMIO_QUEUE_READY, 1)
        assert problem in (machine.transport.problem or "")
        assert machine.driver.get(abi.VIRTIO_MMIO_QUEUE_READY) == 0

    @settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
    @given(
        rings=st.binary(min_size=0x100, max_size=0x100),
        index=st.integers(0, 0xFFFF),
        descriptors=st.lists(
            st.tuples(
                st.integers(0, 0x12000) | st.integers(0, 2**64 - 1),
                st.integers(0, 0x80) | st.integers(0, 2**32 - 1),
                st.integers(0, 7),
                st.integers(0, 20),
            ),
            max_size=16,
        ),
    )
    def test_nothing_that_a_driver_writes_ends_the_host(
        self, rings: bytes, index: int, descriptors: list[tuple[int, int, int, int]]
    ) -> None:
        """The device serves it, or says what is wrong; memory outside its buffers is out of reach."""
        with GuestMemory(SIZE) as memory:
            machine = Machine(Upper(), memory)
            machine.driver.begin()
            ring = machine.driver.rings[0]
            memory.write(ring.available, rings)
            memory.write(ring.available + 2, pack("<H", index))
            for number, descriptor in enumerate(descriptors):
                memory.write(ring.descriptors + 16 * number, pack("<QIHH", *descriptor))
            machine.driver.notify(0)
            failed = bool(machine.driver.get(abi.VIRTIO_MMIO_STATUS) & 0x40)
            assert failed == (machine.transport.problem is not None)

    @given(
        st.lists(
            st.tuples(
                st.integers(0, REGISTERS - 1), st.sampled_from([1, 2, 4, 8]), st.integers(0, 2**64)
            ),
            max_size=40,
        )
    )
    def test_any_access_to_any_register(self, accesses: list[tuple[int, int, int]]) -> None:
        with GuestMemory(SIZE) as memory:
            machine = Machine(Upper(), memory)
            for offset, size, value in accesses:
                machine.transport.write(offset, size, value & (1 << 8 * size) - 1)
                assert machine.transport.read(offset, size) >= 0
            VirtioMmio(memory, Upper()).restore(machine.transport.save())


class TestState:
    def test_a_device_goes_on_in_another_one(self, upper: Machine, memory: GuestMemory) -> None:
        upper.driver.ask(b"x", 1)
        other = VirtioMmio(memory, Upper())
        other.restore(json.loads(json.dumps(upper.transport.save())))
        upper.driver.device = other
        assert upper.driver.interrupts() == abi.VIRTIO_MMIO_INT_VRING
        assert upper.driver.ask(b"going on", 8) == b"GOING ON"

    @pytest.mark.parametrize(
        ("changed", "problem"),
        [
            ({"size_0": 128}, "size_0: more than this device's 64"),
            ({"driver_features": 1 << 40}, "driver_features: 0x10000000000 are not offered"),
            ({"ready_1": -1}, "ready_1: expected an unsigned 16-bit number"),
        ],
    )
    def test_a_state_that_it_cannot_have(
        self, changed: dict[str, int], problem: str, upper: Machine
    ) -> None:
        before = upper.transport.save()
        with pytest.raises(StateError, match=problem):
            upper.transport.restore(before | changed)
        assert upper.transport.save() == before

    def test_every_field_of_a_queue_is_in_it(self, memory: GuestMemory) -> None:
        public = {name for name in vars(Queue(memory, 4)) if not name.startswith("_")}
        assert set(Queue.FIELDS) == public - {"maximum", "event_index"}


class TestBlock:
    def test_it_tells_its_capacity(self, block: Machine) -> None:
        assert block.driver.get(abi.VIRTIO_MMIO_CONFIG) == 8
        assert block.driver.get(abi.VIRTIO_MMIO_CONFIG + 4) == 0
        assert block.driver.get(abi.VIRTIO_MMIO_DEVICE_ID) == abi.VIRTIO_ID_BLOCK
        assert block.driver.offered & 1 << abi.VIRTIO_BLK_F_FLUSH

    def test_sectors_are_read(self, block: Machine) -> None:
        status, data = request(block, abi.VIRTIO_BLK_T_IN, 2, room=3 * SECTOR)
        assert (status, data) == (abi.VIRTIO_BLK_S_OK, DISK[2 * SECTOR : 5 * SECTOR])

    def test_sectors_are_written(self, block: Machine, disk: Path) -> None:
        new = b"\xa5" * 2 * SECTOR
        assert request(block, abi.VIRTIO_BLK_T_OUT, 6, new) == (abi.VIRTIO_BLK_S_OK, b"")
        assert request(block, abi.VIRTIO_BLK_T_FLUSH) == (abi.VIRTIO_BLK_S_OK, b"")
        assert disk.read_bytes() == DISK[: 6 * SECTOR] + new + b"less than a sector"

    def test_it_has_a_name(self, block: Machine) -> None:
        status, name = request(block, abi.VIRTIO_BLK_T_GET_ID, room=20)
        assert (status, name.rstrip(b"\0")) == (abi.VIRTIO_BLK_S_OK, b"a disk")

    @pytest.mark.parametrize(
        ("kind", "sector", "data", "room"),
        [
            (abi.VIRTIO_BLK_T_IN, 8, b"", SECTOR),
            (abi.VIRTIO_BLK_T_IN, 7, b"", 2 * SECTOR),
            (abi.VIRTIO_BLK_T_IN, 2**64 // SECTOR - 1, b"", SECTOR),
            (abi.VIRTIO_BLK_T_IN, 0, b"", SECTOR - 1),
            (abi.VIRTIO_BLK_T_OUT, 8, bytes(SECTOR), 0),
            (abi.VIRTIO_BLK_T_OUT, 0, bytes(SECTOR + 1), 0),
        ],
    )
    def test_what_the_disk_does_not_have_is_an_io_error(
        self, kind: int, sector: int, data: bytes, room: int, block: Machine, disk: Path
    ) -> None:
        before = disk.read_bytes()
        status, _ = request(block, kind, sector, data, room)
        assert status == abi.VIRTIO_BLK_S_IOERR
        assert disk.read_bytes() == before

    def test_unknown_requests_are_unsupported(self, block: Machine) -> None:
        status, _ = request(block, abi.VIRTIO_BLK_T_SECURE_ERASE, 0)
        assert status == abi.VIRTIO_BLK_S_UNSUPP

    def test_a_read_only_disk_is_not_written(self, disk: Path, memory: GuestMemory) -> None:
        disk.chmod(0o444)
        with VirtioBlock(disk, read_only=True) as device:
            machine = Machine(device, memory)
            machine.driver.begin()
            assert machine.driver.offered & 1 << abi.VIRTIO_BLK_F_RO
            status, _ = request(machine, abi.VIRTIO_BLK_T_OUT, 0, bytes(SECTOR))
            assert status == abi.VIRTIO_BLK_S_IOERR
        assert disk.read_bytes().startswith(DISK)

    def test_a_file_that_fails_is_an_io_error(self, block: Machine, disk: Path) -> None:
        disk.write_bytes(b"")
        device = block.transport.device
        assert isinstance(device, VirtioBlock)
        assert request(block, abi.VIRTIO_BLK_T_IN, 0, room=SECTOR)[0] == abi.VIRTIO_BLK_S_IOERR
        assert "shorter" in str(device.error)
        device.close()
        assert request(block, abi.VIRTIO_BLK_T_FLUSH)[0] == abi.VIRTIO_BLK_S_IOERR

    @pytest.mark.parametrize(("sent", "room"), [(b"short", 1), (pack("<IIQ", 0, 0, 0), 0)])
    def test_a_request_without_its_parts(self, sent: bytes, room: int, block: Machine) -> None:
        pieces = [(block.driver.place(len(sent), sent), len(sent), False)]
        block.driver.offer(0, pieces + [(block.driver.place(room), room, True)] * bool(room))
        block.driver.notify(0)
        assert "without header or without room" in (block.transport.problem or "")

    def test_files_that_cannot_be_disks(self, tmp_path: Path) -> None:
        empty = tmp_path / "empty"
        empty.write_bytes(b"x" * (SECTOR - 1))
        with pytest.raises(ValueError, match="it has no whole sector of 512 bytes"):
            VirtioBlock(empty)
        with pytest.raises(FileNotFoundError) as missing:
            VirtioBlock(tmp_path / "none")
        assert str(missing.value).endswith(f"'{tmp_path / 'none'}'")
        with pytest.raises(ValueError, match="has more than 20 bytes"):
            VirtioBlock(empty, serial="x" * 21)
