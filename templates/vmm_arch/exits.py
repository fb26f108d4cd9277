"""Exits: what ``run()`` returns, one class for each exit reason that all hypervisors have.

An exit belongs to its vCPU and is valid until that vCPU's next ``run()``, which reuses the object:
copy what you want to keep. A read must be answered, with ``complete(value)`` or ``ignore()``. Every
exit has ``ignore()``, so ``case other: other.ignore()`` is a valid last case of a ``match``. All
that the hypervisor says about the exit is in ``vcpu.run_context``.

Here are those that every CPU can make. The others, such as x86_64's accesses to ports, are in the
CPU's own module, which also has ``Exit``, everything that ``run()`` returns on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, final

from vmm_arch.breakpoint import HardwareBreakpoint
from vmm_arch.ending import Reason
from vmm_arch.errors import HypervisorError

Answer: TypeAlias = Callable[[Any, bytes], None]
"""How a read passes its answer to the vCPU: with itself, since the exit may be stale."""
Reply: TypeAlias = Callable[[Any, int | None], None]
"""The same for rarer exits: the exit, and the value that completes it or None to refuse."""


class AnyExit(Protocol):
    """Any exit, of any CPU."""

    def ignore(self) -> None:
        """Give the default answer, if one is needed; HypervisorError if the vCPU cannot run on."""


class PlainExit:
    """An exit that does not need an answer."""

    __slots__ = ()

    def ignore(self) -> None:
        """Do nothing: the next run() continues the guest."""


class Notice(PlainExit):
    """An exit that only reports something: the vCPU can run on at once."""

    __slots__ = ()


class WriteExit(PlainExit):
    """An exit with the data that the guest writes."""

    __slots__ = ("data",)
    data: bytes

    @property
    def value(self) -> int:
        """The data as an integer."""
        return int.from_bytes(self.data, "little")


class ReadExit:
    """An exit that needs ``count`` values of ``size`` bytes as its answer."""

    __slots__ = ("_answer", "count", "size")
    size: int
    count: int

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def complete(self, value: int | bytes) -> None:
        """Answer the read: an integer is the answer for each value, bytes are all values.

        Raises ValueError if the integer does not fit, or there are not ``size * count`` bytes.
        """
        size = self.size
        if isinstance(value, int):
            try:
                data = value.to_bytes(size, "little") * self.count
            except OverflowError:
                raise ValueError(f"{value:#x} is not an unsigned {size}-byte value") from None
        else:
            data = value
            if len(data) != size * self.count:
                needed = f"{self.count} * {size} bytes"
                raise ValueError(f"expected {needed} as the answer, got {len(data)}")
        self._answer(self, data)

    def ignore(self) -> None:
        """Answer with all ones, as an empty bus does."""
        self._answer(self, b"\xff" * (self.size * self.count))


@final
class MmioRead(ReadExit):
    """The guest reads ``size`` bytes at a guest-physical address without memory."""

    __slots__ = ("address",)
    __match_args__ = ("address", "size")
    address: int

    def __repr__(self) -> str:
        return f"MmioRead(address={self.address:#x}, size={self.size})"


@final
class MmioWrite(WriteExit):
    """The guest writes to a guest-physical address without memory, or with read-only memory."""

    __slots__ = ("address",)
    __match_args__ = ("address", "data")
    address: int

    def __repr__(self) -> str:
        return f"MmioWrite(address={self.address:#x}, data={self.data!r})"


@final
class Halt(PlainExit):
    """The guest waits for an interrupt, and the hypervisor emulates nothing that could send one."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Halt()"


@final
class Shutdown(PlainExit):
    """The guest cannot continue, on x86_64 after a triple fault. A real machine would reset."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Shutdown()"


@final
class Kicked(Notice):
    """``kick()`` was called."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Kicked()"


@final
class SingleStep(Notice):
    """The guest executed one instruction; the next is at ``pc``. See ``step()``."""

    __slots__ = ("pc",)
    __match_args__ = ("pc",)
    pc: int
    """The program counter, RIP on x86_64."""

    def __repr__(self) -> str:
        return f"SingleStep(pc={self.pc:#x})"


@final
class Breakpoint(PlainExit):
    """The guest reached a breakpoint: see ``set_breakpoints()`` and ``intercept_breakpoints()``.

    A breakpoint for execution stops the guest before its instruction, which :meth:`run` of a vCPU
    would meet again: change or remove it first, or use a CPU's ``Breakpoints``. One for accesses
    stops it after the access.
    """

    __slots__ = ("_reply", "hardware", "pc")
    __match_args__ = ("pc",)
    pc: int
    """The program counter, RIP on x86_64, with the base of its segment."""
    hardware: HardwareBreakpoint | None
    """Which one was reached; None if the guest executed a breakpoint instruction."""

    def __init__(
        self, pc: int, hardware: HardwareBreakpoint | None, reply: Reply | None = None
    ) -> None:
        self.pc = pc
        self.hardware = hardware
        self._reply = reply

    def ignore(self) -> None:
        """Let the guest have the exception of its breakpoint instruction; otherwise do nothing."""
        if self.hardware is None and self._reply is not None:
            self._reply(self, None)

    def __repr__(self) -> str:
        hardware = "" if self.hardware is None else f", hardware={self.hardware}"
        return f"Breakpoint(pc={self.pc:#x}{hardware})"


@final
class MemoryFault:
    """The guest accesses memory of its own that the host does not give it like this.

    On KVM that is memory of a guest_memfd: the guest accesses as shared what is private or the other
    way round, or the file has no such page. (Where the host lacks memory of another kind, ``run()``
    raises HypervisorError.) The vCPU stands before the access, and can run on once it is repaired.
    """

    __slots__ = ("address", "is_private", "operation", "size")
    __match_args__ = ("address", "size")
    address: int
    size: int
    """How many bytes: whole pages."""
    is_private: bool
    """Whether the guest accesses it as private, that is, not shared with the host."""
    operation: str

    def __init__(self, address: int, size: int, is_private: bool, operation: str) -> None:
        self.address = address
        self.size = size
        self.is_private = is_private
        self.operation = operation

    def ignore(self) -> None:
        """Raise it as a HypervisorError, since running on would fail again."""
        kind = "private" if self.is_private else "shared"
        cause = f"the host has no {kind} memory for {self.size:#x} bytes at {self.address:#x}"
        raise HypervisorError(self.operation, "EFAULT", cause)

    def __repr__(self) -> str:
        address, size = f"{self.address:#x}", f"{self.size:#x}"
        return f"MemoryFault(address={address}, size={size}, is_private={self.is_private})"


@final
class SystemEvent(PlainExit):
    """The guest called its firmware, or its hypervisor, for a shutdown, a reset or the like.

    ``reason`` is what it means for the guest; None if it is none of the usual events.
    """

    __slots__ = ("kind", "reason")
    __match_args__ = ("kind",)
    kind: int
    """The hypervisor's number for it."""
    reason: Reason | None

    def __init__(self, kind: int, reason: Reason | None = None) -> None:
        self.kind = kind
        self.reason = reason

    def __repr__(self) -> str:
        reason = "" if self.reason is None else f", reason={str(self.reason)!r}"
        return f"SystemEvent(kind={self.kind}{reason})"


@final
class Failure:
    """The vCPU cannot run: its state is invalid, or the hypervisor cannot do what it needs."""

    __slots__ = ("code", "instruction", "message", "operation")
    __match_args__ = ("code", "message")
    operation: str
    code: str
    """The hypervisor's name for the failure, with its numbers."""
    message: str
    instruction: bytes
    """If an instruction is the cause, its first bytes, as far as the hypervisor fetched them."""

    def __init__(self) -> None:
        self.instruction = b""

    def ignore(self) -> None:
        """Raise the failure as a HypervisorError, since running on would fail again."""
        raise HypervisorError(self.operation, self.code, self.message)

    def __repr__(self) -> str:
        return f"Failure(code={self.code!r}, message={self.message!r})"


@final
class OtherExit:
    """An exit reason that only this hypervisor has; the details are in ``vcpu.run_context``.

    If the guest waits for an answer, to a hypercall for instance, write it to ``run_context`` and
    then call :meth:`complete`.
    """

    __slots__ = ("_reply", "name", "reason")
    __match_args__ = ("reason",)
    reason: int
    name: str
    """The reason's name in the hypervisor's header."""

    def __init__(self, reason: int, name: str, reply: Reply | None = None) -> None:
        self.reason = reason
        self.name = name
        self._reply = reply

    def complete(self) -> None:
        """Answer with what is in ``run_context``, if the guest waits for an answer."""
        if self._reply is not None:
            self._reply(self, 0)

    def ignore(self) -> None:
        """Answer that there is no such service, if the guest waits for an answer."""
        if self._reply is not None:
            self._reply(self, None)

    def __repr__(self) -> str:
        return f"OtherExit(reason={self.name})"


CommonExit: TypeAlias = (
    MmioRead
    | MmioWrite
    | Halt
    | Shutdown
    | Kicked
    | SingleStep
    | Breakpoint
    | MemoryFault
    | SystemEvent
    | Failure
    | OtherExit
)
"""The exits that a vCPU of any CPU can make."""
