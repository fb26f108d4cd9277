"""The packets of a debugger that looks at a stopped guest, and their answers (GDB manual, E.2 to E.6).

A thread is a vCPU, by its index plus one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from vmm_arch.activity import Activity
from vmm_arch.debug.cpu import Architecture, Cpu
from vmm_arch.debug.monitor import Monitor
from vmm_arch.debug.packets import LONGEST, Malformed, from_hex, number
from vmm_arch.debug.points import Kind, Point, Points
from vmm_arch.debug.stop import Detach, Kill, Resume, Stop
from vmm_arch.errors import HypervisorError, VcpuError
from vmm_arch.memory import MemoryAccessError

Answer: TypeAlias = bytes | Resume | Detach | Kill

_OK: Final = b"OK"
_NOT_KNOWN: Final = b""
"""The answer to a packet that is not supported."""
_MALFORMED: Final = b"E16"
_NO_MEMORY: Final = b"E0e"
_FAILED: Final = b"E05"
_MOST_READ: Final = LONGEST // 2 - 16
_WHAT: Final = {
    Activity.NOT_STARTED: ": not started",
    Activity.HALTED: ": halted",
    Activity.HALTED_FOR_GOOD: ": halted, interrupts off",
}
_ALL, _ANY = -1, 0
"""Thread ids that mean several."""


class Commands:
    """One client's view of a machine whose vCPUs are all stopped."""

    def __init__(
        self,
        vm: Any,
        cpu: Cpu,
        points: Points,
        monitor: Monitor,
        architecture: str | None,
        can_step: bool,
    ) -> None:
        self._vm = vm
        self._cpu = cpu
        self._points = points
        self._monitor = monitor
        self._can_step = can_step
        self._architecture: Architecture = cpu.architecture(architecture, vm.vcpus[0])
        self._continues = _ALL
        self.index = 0
        """The vCPU that registers and memory are of."""
        self.names = False
        """Whether the client knows swbreak and hwbreak."""
        self.wants_no_acknowledgements = False
        self._stop: Stop | None = None

    def stopped(self, stop: Stop) -> bytes:
        """What to tell the client about a stop."""
        self._stop = stop
        self.index = stop.index
        return stop.reply(self.names)

    def answer(self, data: bytes) -> Answer:
        """The answer to a packet, whatever is in it."""
        letter, rest = data[:1], data[1:]
        handler = _HANDLERS.get(letter)
        if handler is None:
            return _NOT_KNOWN
        try:
            return handler(self, rest)
        except MemoryAccessError:
            return _NO_MEMORY
        except Malformed:
            return _MALFORMED
        except ValueError as error:
            return f"E.{error}".encode()
        except (HypervisorError, VcpuError):
            return _FAILED

    # Registers

    def _read_registers(self, _: bytes) -> Answer:
        return b"".join(self._architecture.read(self._vcpu)).hex().encode()

    def _write_registers(self, text: bytes) -> Answer:
        data, values = from_hex(text), {}
        for index, size in enumerate(self._architecture.sizes):
            if not data:
                break  # a client that knows fewer
            if len(data) < size:
                raise Malformed("a register is cut short")
            values[index], data = data[:size], data[size:]
        if data:
            raise Malformed("there are fewer registers")
        self._architecture.write(self._vcpu, values)
        return _OK

    def _read_register(self, text: bytes) -> Answer:
        return self._architecture.read(self._vcpu)[self._register(text)].hex().encode()

    def _write_register(self, text: bytes) -> Answer:
        name, _, value = text.partition(b"=")
        index, data = self._register(name), from_hex(value)
        if len(data) != self._architecture.sizes[index]:
            raise Malformed("the register has another size")
        self._architecture.write(self._vcpu, {index: data})
        return _OK

    def _register(self, text: bytes) -> int:
        index = number(text)
        if index >= len(self._architecture.sizes):
            raise Malformed("there is no such register")
        return index

    # Memory

    def _read_memory(self, text: bytes) -> Answer:
        address, size = _interval(text)
        size = min(size, _MOST_READ)
        if self._monitor.physical:
            found = self._vm.memory.read(address, size)
        else:
            found = self._space.read_mapped(address, size)
        if size and not found:
            return _NO_MEMORY
        return bytes(found).hex().encode()

    def _write_hex(self, text: bytes) -> Answer:
        where, _, digits = text.partition(b":")
        return self._write_memory(where, from_hex(digits))

    def _write_binary(self, text: bytes) -> Answer:
        where, _, data = text.partition(b":")
        return self._write_memory(where, data)

    def _write_memory(self, where: bytes, data: bytes) -> Answer:
        address, size = _interval(where)
        if size != len(data):
            raise Malformed("there are more or fewer bytes than it says")
        if self._monitor.physical:
            self._vm.memory.write(address, data)
        else:
            self._space.write(address, data)
        return _OK

    @property
    def _space(self) -> Any:
        return self._cpu.address_space(self._vcpu)

    @property
    def _vcpu(self) -> Any:
        return self._vm.vcpus[self.index]

    # Breakpoints

    def _insert(self, text: bytes) -> Answer:
        point = _point(text)
        self._points.insert(point, self._physical(point.address))
        return _OK

    def _remove(self, text: bytes) -> Answer:
        self._points.remove(_point(text))
        return _OK

    def _physical(self, address: int) -> int | None:
        """The guest-physical address, if there is memory."""
        space = self._space
        physical: int | None = space.translate(address)
        return physical if space.read_mapped(address, 1) else None

    # Threads

    def _why_stopped(self, _: bytes) -> Answer:
        return b"W00" if self._stop is None else self._stop.reply(self.names)

    def _select(self, text: bytes) -> Answer:
        thread = _thread(text[1:])
        if thread > 0:
            self._require(thread)
        match text[:1]:
            case b"g":
                if thread > 0:
                    self.index = thread - 1
            case b"c":
                self._continues = thread
            case _:
                return _NOT_KNOWN
        return _OK

    def _is_alive(self, text: bytes) -> Answer:
        self._require(_thread(text))
        return _OK

    def _require(self, thread: int) -> None:
        if not 0 < thread <= len(self._vm.vcpus):
            raise Malformed("there is no such thread")

    def _describe_thread(self, text: bytes) -> bytes:
        thread = _thread(text)
        self._require(thread)
        vcpu = self._vm.vcpus[thread - 1]
        return f"vCPU {vcpu.index}{_WHAT.get(vcpu.get_activity(), '')}".encode().hex().encode()

    # Going on

    def _continue(self, text: bytes) -> Answer:
        return self._go_on(text, steps=False)

    def _step(self, text: bytes) -> Answer:
        return self._go_on(text, steps=True)

    def _continue_with_signal(self, text: bytes) -> Answer:
        return self._go_on(text.partition(b";")[2], steps=False)

    def _step_with_signal(self, text: bytes) -> Answer:
        return self._go_on(text.partition(b";")[2], steps=True)

    def _go_on(self, at: bytes, *, steps: bool) -> Answer:
        """The packets from before vCont: the thread of ``Hc``, and perhaps an address."""
        index = self._continues - 1 if self._continues > 0 else self.index
        if at:
            self._cpu.go_to(self._vm.vcpus[index], number(at))
        everyone = frozenset(range(len(self._vm.vcpus)))
        running = frozenset([index]) if self._continues > 0 else everyone
        return self._resume(running, frozenset([index] if steps else []))

    def _actions(self, text: bytes) -> Answer:
        """``vCont;ACTION:THREAD;…``: the first action that fits is a thread's."""
        running: set[int] = set()
        stepping: set[int] = set()
        seen: set[int] = set()
        for part in text.split(b";"):
            action, _, thread = part.partition(b":")
            if not re.fullmatch(rb"[cs]|[CS][0-9a-fA-F]{2}", action):
                raise Malformed("there is no such action")
            wanted = _thread(thread) if thread else _ALL
            if wanted > 0:
                self._require(wanted)
                threads = {wanted - 1}
            else:
                threads = set(range(len(self._vm.vcpus)))
            running |= threads - seen
            if action[:1] in b"sS":
                stepping |= threads - seen
            seen |= threads
        return self._resume(frozenset(running), frozenset(stepping))

    def _resume(self, running: frozenset[int], stepping: frozenset[int]) -> Resume:
        if stepping and not self._can_step:
            raise ValueError("this hypervisor has no single steps")
        if 1 < len(running) < len(self._vm.vcpus):
            raise ValueError("one vCPU can run alone, or all of them")
        return Resume(running, stepping)

    def _detach(self, _: bytes) -> Answer:
        return Detach()

    def _kill(self, _: bytes) -> Answer:
        return Kill(answer=False)

    # Packets with names

    def _verbose(self, text: bytes) -> Answer:
        if text == b"Cont?":
            return b"vCont;c;C;s;S"
        if text.startswith(b"Cont;"):
            return self._actions(text[5:])
        if text.startswith(b"Kill"):
            return Kill(answer=True)
        return _NOT_KNOWN

    def _set(self, text: bytes) -> Answer:
        match text:
            case b"StartNoAckMode":
                self.wants_no_acknowledgements = True
            case b"qemu.PhyMemMode:0" | b"qemu.PhyMemMode:1":
                self._monitor.physical = text.endswith(b"1")
            case _:
                return _NOT_KNOWN
        return _OK

    def _query(self, text: bytes) -> Answer:
        name, _, rest = text.partition(b":")
        match text:
            case b"C":
                return b"QC%x" % (self.index + 1)
            case b"fThreadInfo":
                return b"m" + b",".join(b"%x" % (vcpu.index + 1) for vcpu in self._vm.vcpus)
            case b"sThreadInfo":
                return b"l"
            case b"Attached":
                return b"1"  # so that gdb detaches when it is left, and does not kill
            case b"qemu.PhyMemMode":
                return b"%d" % self._monitor.physical
        if name == b"Supported":
            self.names = {b"swbreak+", b"hwbreak+"} <= set(rest.split(b";"))
            return (
                b"PacketSize=%x;QStartNoAckMode+;qXfer:features:read+;vContSupported+;swbreak+;"
                b"hwbreak+" % LONGEST
            )
        if name == b"Xfer":
            return self._transfer(rest)
        if text.startswith(b"ThreadExtraInfo,"):
            return self._describe_thread(text.partition(b",")[2])
        if text.startswith(b"Rcmd,"):
            line = from_hex(text[5:]).decode(errors="replace")
            said = self._monitor.answer(line, self.index)
            return said.encode()[:_MOST_READ].hex().encode() or _OK
        return _NOT_KNOWN

    def _transfer(self, text: bytes) -> bytes:
        """``features:read:target.xml:OFFSET,LENGTH``."""
        where, _, interval = text.rpartition(b":")
        if where != b"features:read:target.xml":
            return b"E00" if where.startswith(b"features:read:") else _NOT_KNOWN
        offset, size = _interval(interval)
        document = self._architecture.description.encode()
        part = document[offset : offset + min(size, _MOST_READ)]
        return (b"m" if offset + len(part) < len(document) else b"l") + part


_HANDLERS: Final[Mapping[bytes, Callable[[Commands, bytes], Answer]]] = {
    b"?": Commands._why_stopped,
    b"g": Commands._read_registers,
    b"G": Commands._write_registers,
    b"p": Commands._read_register,
    b"P": Commands._write_register,
    b"m": Commands._read_memory,
    b"M": Commands._write_hex,
    b"X": Commands._write_binary,
    b"Z": Commands._insert,
    b"z": Commands._remove,
    b"H": Commands._select,
    b"T": Commands._is_alive,
    b"c": Commands._continue,
    b"s": Commands._step,
    b"C": Commands._continue_with_signal,
    b"S": Commands._step_with_signal,
    b"D": Commands._detach,
    b"k": Commands._kill,
    b"v": Commands._verbose,
    b"q": Commands._query,
    b"Q": Commands._set,
}


def _interval(text: bytes) -> tuple[int, int]:
    """``ADDRESS,LENGTH``."""
    address, _, size = text.partition(b",")
    return number(address), number(size)


def _point(text: bytes) -> Point:
    """``KIND,ADDRESS,SIZE``, and perhaps conditions, of which the client is told nothing."""
    fields: Sequence[bytes] = text.partition(b";")[0].split(b",")
    if len(fields) != 3 or fields[0] not in (b"0", b"1", b"2", b"3", b"4"):
        raise Malformed("there is no such breakpoint")
    kind, size = Kind(int(fields[0])), number(fields[2])
    if kind in (Kind.SOFTWARE, Kind.HARDWARE):
        size = 1
    if not 0 < size <= 0x100:
        raise Malformed("nothing of that size can be watched")
    return Point(kind, number(fields[1]), size)


def _thread(text: bytes) -> int:
    return _ALL if text == b"-1" else number(text)
