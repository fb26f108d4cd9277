"""The virtio transport by memory-mapped registers, for machines without PCI.

Source: Virtual I/O Device (VIRTIO) version 1.2, sections 2 to 4.2, whose numbers are the same on every
CPU; a test compares them with ``linux/virtio_mmio.h`` and ``linux/virtio_config.h``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import RLock
from typing import Any, Final

from vmm_arch.devices.state import Fields, Number, check
from vmm_arch.devices.virtio.device import VirtioDevice
from vmm_arch.devices.virtio.queue import Queue, VirtqueueError
from vmm_arch.errors import StateError
from vmm_arch.memory import GuestMemory, MemoryAccessError

REGISTERS: Final = 0x200
"""The size of the registers in bytes, with 256 for the device's configuration."""
MAGIC_VALUE: Final = 0x74726976
"""``virt``."""
VERSION: Final = 2
VENDOR_ID: Final = 0x414D4D56
"""``VMMA``."""
QUEUE_NOTIFY: Final = 0x50
"""The offset of the register that the driver writes a queue's number to, once it has filled it."""
CONFIG: Final = 0x100

DRIVER_OK, FEATURES_OK, NEEDS_RESET = 4, 8, 64
"""The bits of the status that the device looks at or sets."""

INDIRECT_DESCRIPTORS: Final = 1 << 28
EVENT_INDEX: Final = 1 << 29
VERSION_1: Final = 1 << 32
TRANSPORT_FEATURES: Final = INDIRECT_DESCRIPTORS | EVENT_INDEX | VERSION_1

USED_BUFFER, CONFIG_CHANGE = 1, 2
"""Bits of the interrupt status."""

_OF_QUEUE: Final = {
    0x38: ("size", 0),
    0x80: ("descriptors", 0),
    0x84: ("descriptors", 32),
    0x90: ("driver", 0),
    0x94: ("driver", 32),
    0xA0: ("device", 0),
    0xA4: ("device", 32),
}
"""The registers that set a queue up: the attribute of a queue, and the lowest bit."""
_READ_ONES: Final = (0xB0, 0xB4, 0xB8, 0xBC)
"""Length and address of a region of shared memory: there is none (4.2.2)."""


class VirtioMmio:
    """A virtio device with its registers, for :meth:`Bus.attach_memory`::

        disk = VirtioMmio(memory, VirtioBlock("root.img"), partial(vm.set_irq_line, 5))
        bus.attach_memory(range(0xD0000000, 0xD0000200), disk)

    ``set_irq`` is called whenever the interrupt line changes; for edge-triggered interrupts it is
    lowered and raised again for each one. A driver that breaks the rules, with a chain that has no
    end or an address outside guest memory, gets DEVICE_NEEDS_RESET (2.1.2), and ``problem`` says
    what it was: until it resets the device, that does nothing. An exception of the device itself
    leaves :meth:`write`, with a note that names the device and the queue.
    """

    def __init__(
        self,
        memory: GuestMemory,
        device: VirtioDevice,
        set_irq: Callable[[bool], object] | None = None,
    ) -> None:
        self.lock = RLock()
        """Held while the device is used: by the vCPUs' threads, and by threads of its own."""
        self.device = device
        self.queues = [Queue(memory, size) for size in device.QUEUES]
        self.problem: str | None = None
        """What the driver did wrong, since it last reset the device."""
        self._set_irq = set_irq
        self._status = 0
        self._interrupts = 0
        self._generation = 0
        self._device_features_page = self._driver_features_page = 0
        self._driver_features = 0
        self._selected = 0
        device.transport = self
        queues = range(len(self.queues))
        self.STATE: Fields = {
            "status": Number(8),
            "interrupts": Number(2),
            "generation": Number(32),
            "driver_features": Number(64),
            **dict.fromkeys(
                ("device_features_page", "driver_features_page", "selected"), Number(32)
            ),
            **{f"{name}_{n}": Number(bits) for n in queues for name, bits in Queue.FIELDS.items()},
            **{f"device_{name}": field for name, field in device.STATE.items()},
        }
        self._own = [name for name in self.STATE if hasattr(self, f"_{name}")]

    @property
    def offered(self) -> int:
        """The features that the device offers."""
        return self.device.FEATURES | TRANSPORT_FEATURES

    # The driver's accesses

    def read(self, offset: int, size: int) -> int:
        with self.lock:
            if offset >= CONFIG:
                config = self.device.config()[offset - CONFIG : offset - CONFIG + size]
                return int.from_bytes(config, "little")
            return self._register(offset) if size == 4 else 0

    def _register(self, offset: int) -> int:
        match offset:
            case 0x00:
                return MAGIC_VALUE
            case 0x04:
                return VERSION
            case 0x08:
                return self.device.DEVICE_TYPE
            case 0x0C:
                return VENDOR_ID
            case 0x10:
                page = self._device_features_page
                return self.offered >> 32 * page & 0xFFFFFFFF if page < 2 else 0
            case 0x34:
                return self.queues[self._selected].maximum if self._has_queue else 0
            case 0x44:
                return self.queues[self._selected].ready if self._has_queue else 0
            case 0x60:
                return self._interrupts
            case 0x70:
                return self._status
            case 0xFC:
                return self._generation
        return 0xFFFFFFFF if offset in _READ_ONES else 0

    @property
    def _has_queue(self) -> bool:
        return self._selected < len(self.queues)

    def write(self, offset: int, size: int, value: int) -> None:
        with self.lock:
            if offset == QUEUE_NOTIFY:
                self.notify(value)
            elif offset >= CONFIG:
                self.device.write_config(offset - CONFIG, value.to_bytes(size, "little"))
            elif size == 4:
                self._write_register(offset, value)

    def _write_register(self, offset: int, value: int) -> None:
        match offset:
            case 0x14:
                self._device_features_page = value
            case 0x24:
                self._driver_features_page = value
            case 0x20 if self._driver_features_page < 2 and not self._status & FEATURES_OK:
                low = 32 * self._driver_features_page
                self._driver_features = _with_half(self._driver_features, low, value)
            case 0x30:
                self._selected = value
            case 0x44 if self._has_queue:
                self._make_ready(self.queues[self._selected], value)
            case 0x64:
                self._interrupts &= ~value
                self._update_irq(False)
                if self._interrupts:  # of another kind: an edge for it
                    self._update_irq(True)
            case 0x70:
                self._set_status(value)
        if offset in _OF_QUEUE and self._has_queue:
            queue = self.queues[self._selected]
            name, low = _OF_QUEUE[offset]
            if not queue.ready:
                changed = value & 0xFFFF if name == "size" else value
                setattr(queue, name, _with_half(getattr(queue, name), low, changed))

    def _make_ready(self, queue: Queue, value: int) -> None:
        if not value:
            queue.ready = 0
        elif (problem := queue.problem()) is not None:
            self._fail(f"queue {self._selected}: {problem}")
        else:
            queue.ready = 1

    def _set_status(self, value: int) -> None:
        if not value:
            self._reset()
            return
        wrong = self._driver_features & ~self.offered or not self._driver_features & VERSION_1
        if value & FEATURES_OK and wrong:
            value &= ~FEATURES_OK  # so the driver sees that it asked for too much
        self._status = value | self._status & NEEDS_RESET
        self._negotiated()

    def _negotiated(self) -> None:
        """Give the device and its queues the features that the driver accepted."""
        agreed = self._driver_features if self._status & FEATURES_OK else 0
        self.device.features = agreed
        for queue in self.queues:
            queue.event_index = bool(agreed & EVENT_INDEX)

    def _reset(self) -> None:
        self._status = self._interrupts = self._selected = 0
        self._driver_features = self._driver_features_page = self._device_features_page = 0
        self.problem = None
        for queue in self.queues:
            queue.reset()
        self._negotiated()
        self.device.reset()
        self._update_irq(False)

    # What happens to the device

    def notify(self, number: int) -> None:
        """The driver has filled a queue: have the device handle it; for any thread."""
        with self.lock:
            if not self._status & DRIVER_OK or self._status & NEEDS_RESET:
                return
            if number >= len(self.queues):
                return
            try:
                self.device.notified(number)
            except (VirtqueueError, MemoryAccessError) as error:
                self._fail(f"queue {number}: {error}")
            except Exception as error:
                error.add_note(f"{type(self.device).__name__} was handling its queue {number}.")
                raise

    def signal(self, queue: Queue) -> None:
        """Tell the driver that chains were pushed, if it wants to hear."""
        if queue.signal():
            self._interrupt(USED_BUFFER)

    def config_changed(self) -> None:
        """Tell the driver that the device's configuration changed."""
        with self.lock:
            self._generation = self._generation + 1 & 0xFFFFFFFF
            if self._status & DRIVER_OK:
                self._interrupt(CONFIG_CHANGE)

    def _fail(self, problem: str) -> None:
        self.problem = problem
        self._status |= NEEDS_RESET
        if self._status & DRIVER_OK:
            self._interrupt(CONFIG_CHANGE)

    def _interrupt(self, kind: int) -> None:
        self._interrupts |= kind
        self._update_irq(True)

    def _update_irq(self, active: bool) -> None:
        if self._set_irq is not None:
            self._set_irq(active)

    # State

    def save(self) -> dict[str, Any]:
        """Return the state of the transport, of its queues, and of the device."""
        state = {name: getattr(self, f"_{name}") for name in self._own}
        for number, queue in enumerate(self.queues):
            state |= {f"{name}_{number}": getattr(queue, name) for name in Queue.FIELDS}
        return state | {f"device_{name}": value for name, value in self.device.save().items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a state over, or raise StateError and change nothing. What ``problem`` said is lost."""
        check(self, state)
        wrong = []
        if extra := state["driver_features"] & ~self.offered:
            wrong.append(f"driver_features: {extra:#x} are not offered by this device")
        for number, queue in enumerate(self.queues):
            if state[f"size_{number}"] > queue.maximum:
                wrong.append(f"size_{number}: more than this device's {queue.maximum}")
        if wrong:
            raise StateError("restore", wrong)
        self.device.restore({name: state[f"device_{name}"] for name in self.device.STATE})
        for name in self._own:
            setattr(self, f"_{name}", state[name])
        for number, queue in enumerate(self.queues):
            for name in Queue.FIELDS:
                setattr(queue, name, state[f"{name}_{number}"])
        self._negotiated()


def _with_half(value: int, low: int, half: int) -> int:
    """A number with 32 of its bits replaced."""
    return value & ~(0xFFFFFFFF << low) | half << low
