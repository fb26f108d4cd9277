"""Exits: what ``run()`` returns, one class for each exit reason that all hypervisors have.

An exit belongs to its vCPU and is valid until that vCPU's next ``run()``, which reuses the object:
copy what you want to keep. A read must be answered, with ``complete(value)`` or ``ignore()``, and
so must an MSR access, which ``refuse()`` turns into #GP. Every exit has ``ignore()``, so
``case other: other.ignore()`` is a valid last case of a ``match``. All that the hypervisor says
about the exit is in ``vcpu.run_context``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, final

from vmm_arch.errors import HypervisorError

Answer: TypeAlias = Callable[[Any, bytes], None]
"""How a read passes its answer to the vCPU: with itself, since the exit may be stale."""
Reply: TypeAlias = Callable[[Any, int | None], None]
"""The same for rarer exits: the exit, and the value that completes it or None to refuse."""


class _Ignorable:
    """An exit that does not need an answer."""

    __slots__ = ()

    def ignore(self) -> None:
        """Do nothing: the next run() continues the guest."""


class _Read:
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
class IoIn(_Read):
    """The guest reads a port: ``count`` times ``size`` bytes (more than once for INS)."""

    __slots__ = ("port",)
    __match_args__ = ("port", "size")
    port: int

    def __repr__(self) -> str:
        return f"IoIn(port={self.port:#x}, size={self.size}, count={self.count})"


@final
class IoOut(_Ignorable):
    """The guest writes a port: ``count`` values of ``size`` bytes (more than one for OUTS)."""

    __slots__ = ("count", "data", "port", "size")
    __match_args__ = ("port", "data")
    port: int
    size: int
    count: int
    data: bytes
    """All values, concatenated."""

    @property
    def value(self) -> int:
        """The first value as an integer."""
        return int.from_bytes(self.data[: self.size], "little")

    def __repr__(self) -> str:
        return f"IoOut(port={self.port:#x}, data={self.data!r}, size={self.size})"


@final
class MmioRead(_Read):
    """The guest reads ``size`` bytes at a guest-physical address without memory."""

    __slots__ = ("address",)
    __match_args__ = ("address", "size")
    address: int

    def __repr__(self) -> str:
        return f"MmioRead(address={self.address:#x}, size={self.size})"


@final
class MmioWrite(_Ignorable):
    """The guest writes to a guest-physical address without memory, or with read-only memory."""

    __slots__ = ("address", "data")
    __match_args__ = ("address", "data")
    address: int
    data: bytes

    @property
    def value(self) -> int:
        """The data as an integer."""
        return int.from_bytes(self.data, "little")

    def __repr__(self) -> str:
        return f"MmioWrite(address={self.address:#x}, data={self.data!r})"


class _MsrAccess:
    """An access to a model-specific register that waits until it is completed or refused."""

    __slots__ = ("_reply", "index")
    index: int

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    def refuse(self) -> None:
        """Make the instruction raise #GP, as on a processor that lacks the MSR."""
        self._reply(self, None)

    def ignore(self) -> None:
        """Same as :meth:`refuse`."""
        self._reply(self, None)


@final
class MsrRead(_MsrAccess):
    """The guest reads (RDMSR) an MSR for which the hypervisor was told to exit."""

    __slots__ = ()
    __match_args__ = ("index",)

    def complete(self, value: int) -> None:
        """Answer with the 64 bits of EDX:EAX. Raises ValueError if the value does not fit."""
        if not 0 <= value < 1 << 64:
            raise ValueError(f"{value:#x} is not an unsigned 8-byte value")
        self._reply(self, value)

    def __repr__(self) -> str:
        return f"MsrRead(index={self.index:#x})"


@final
class MsrWrite(_MsrAccess):
    """The guest writes (WRMSR) an MSR for which the hypervisor was told to exit."""

    __slots__ = ("value",)
    __match_args__ = ("index", "value")
    value: int
    """The 64 bits of EDX:EAX."""

    def complete(self) -> None:
        """Let the instruction finish; what to do with the value is up to the caller."""
        self._reply(self, self.value)

    def __repr__(self) -> str:
        return f"MsrWrite(index={self.index:#x}, value={self.value:#x})"


@final
class Halt(_Ignorable):
    """The guest executed HLT, and the hypervisor has no interrupt controller that could wake it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Halt()"


@final
class Shutdown(_Ignorable):
    """Triple fault: the guest cannot continue. A real machine would reset."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Shutdown()"


@final
class Kicked(_Ignorable):
    """``kick()`` was called."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Kicked()"


@final
class InterruptWindow(_Ignorable):
    """The guest can accept an interrupt now; see ``request_interrupt_window()``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "InterruptWindow()"


@final
class EndOfInterrupt(_Ignorable):
    """The guest acknowledged a level-triggered interrupt of this vector."""

    __slots__ = ("vector",)
    __match_args__ = ("vector",)
    vector: int

    def __repr__(self) -> str:
        return f"EndOfInterrupt(vector={self.vector})"


@final
class SingleStep(_Ignorable):
    """The guest executed one instruction; the next is at ``rip``. See ``step()``."""

    __slots__ = ("rip",)
    __match_args__ = ("rip",)
    rip: int

    def __repr__(self) -> str:
        return f"SingleStep(rip={self.rip:#x})"


@final
class SystemEvent(_Ignorable):
    """The guest called its firmware interface for a shutdown, a reset or the like.

    ``kind`` is the hypervisor's number for it.
    """

    __slots__ = ("kind",)
    __match_args__ = ("kind",)
    kind: int

    def __repr__(self) -> str:
        return f"SystemEvent(kind={self.kind})"


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


Exit: TypeAlias = (
    IoIn
    | IoOut
    | MmioRead
    | MmioWrite
    | MsrRead
    | MsrWrite
    | Halt
    | Shutdown
    | Kicked
    | InterruptWindow
    | EndOfInterrupt
    | SingleStep
    | SystemEvent
    | Failure
    | OtherExit
)
"""Everything that ``run()`` returns."""
Question: TypeAlias = IoIn | MmioRead | MsrRead | MsrWrite | OtherExit
"""The exits that may need an answer."""
