"""Why a guest stopped: one class for each reason that all hypervisors know.

An exit belongs to its vCPU and is valid until that vCPU's next ``run()``, which uses the object
again: copy what you want to keep. A read waits for an answer, ``complete(value)`` or ``ignore()``,
and so does an access to an MSR, which ``refuse()`` turns into #GP; every other exit may be ignored,
so that ``case other: other.ignore()`` ends a ``match``. What a hypervisor tells beyond this is in
``vcpu.run_context``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, final

from vmm_arch.errors import HypervisorError

Answer: TypeAlias = Callable[[Any, bytes], None]
"""How a read hands the answer to its vCPU: with itself, since it may be an old one."""
Reply: TypeAlias = Callable[[Any, int | None], None]
"""How a rarer exit does: with itself, and the value that it is completed with, or None to refuse."""


class _Ignorable:
    """An exit that needs no answer."""

    __slots__ = ()

    def ignore(self) -> None:
        """Do nothing: the next run() goes on."""


class _Read:
    """An exit that waits for ``count`` values of ``size`` bytes."""

    __slots__ = ("_answer", "count", "size")
    size: int
    count: int

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def complete(self, value: int | bytes) -> None:
        """Answer the read: with an integer, for each value, or with ``size * count`` bytes.

        Raises ValueError if the answer does not fit.
        """
        size = self.size
        if isinstance(value, int):
            try:
                data = value.to_bytes(size, "little") * self.count
            except OverflowError:
                raise ValueError(f"{value:#x} is no unsigned value of {size} bytes") from None
        else:
            data = value
            if len(data) != size * self.count:
                needed = f"{self.count} values of {size} bytes"
                raise ValueError(f"{len(data)} bytes answer a read of {needed}")
        self._answer(self, data)

    def ignore(self) -> None:
        """Answer as an empty bus does: with all ones."""
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
    """All values, one after the other."""

    @property
    def value(self) -> int:
        """The first value as an integer."""
        return int.from_bytes(self.data[: self.size], "little")

    def __repr__(self) -> str:
        return f"IoOut(port={self.port:#x}, data={self.data!r}, size={self.size})"


@final
class MmioRead(_Read):
    """The guest reads ``size`` bytes at a guest-physical address where there is no memory."""

    __slots__ = ("address",)
    __match_args__ = ("address", "size")
    address: int

    def __repr__(self) -> str:
        return f"MmioRead(address={self.address:#x}, size={self.size})"


@final
class MmioWrite(_Ignorable):
    """The guest writes at a guest-physical address where there is no memory it may write."""

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
    """An access to a model-specific register that waits until somebody allows or refuses it."""

    __slots__ = ("_reply", "index")
    index: int

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    def refuse(self) -> None:
        """Have the instruction raise #GP, as a processor does that lacks the MSR."""
        self._reply(self, None)

    def ignore(self) -> None:
        """Refuse: a processor knows no MSR that nobody answers for."""
        self._reply(self, None)


@final
class MsrRead(_MsrAccess):
    """The guest reads (RDMSR) an MSR that the hypervisor was told to ask about."""

    __slots__ = ()
    __match_args__ = ("index",)

    def complete(self, value: int) -> None:
        """Answer with the 64 bits of EDX:EAX. Raises ValueError if there are more."""
        if not 0 <= value < 1 << 64:
            raise ValueError(f"{value:#x} is no unsigned value of 8 bytes")
        self._reply(self, value)

    def __repr__(self) -> str:
        return f"MsrRead(index={self.index:#x})"


@final
class MsrWrite(_MsrAccess):
    """The guest writes (WRMSR) an MSR that the hypervisor was told to ask about."""

    __slots__ = ("value",)
    __match_args__ = ("index", "value")
    value: int
    """The 64 bits of EDX:EAX."""

    def complete(self) -> None:
        """Let the instruction finish: the value has been taken, or is dropped."""
        self._reply(self, self.value)

    def __repr__(self) -> str:
        return f"MsrWrite(index={self.index:#x}, value={self.value:#x})"


@final
class Halt(_Ignorable):
    """The guest executed HLT, and no interrupt controller of the hypervisor can wake it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Halt()"


@final
class Shutdown(_Ignorable):
    """The guest is at its end: a triple fault, which resets a real machine."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Shutdown()"


@final
class Kicked(_Ignorable):
    """Somebody called ``kick()``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Kicked()"


@final
class InterruptWindow(_Ignorable):
    """The guest can take an interrupt now, as was asked for."""

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
    """The guest executed an instruction, as was asked for; the next one is at ``rip``."""

    __slots__ = ("rip",)
    __match_args__ = ("rip",)
    rip: int

    def __repr__(self) -> str:
        return f"SingleStep(rip={self.rip:#x})"


@final
class SystemEvent(_Ignorable):
    """The guest asked its firmware interface for a shutdown, a reset or the like.

    ``kind`` is the hypervisor's number for it.
    """

    __slots__ = ("kind",)
    __match_args__ = ("kind",)
    kind: int

    def __repr__(self) -> str:
        return f"SystemEvent(kind={self.kind})"


@final
class Failure:
    """The vCPU cannot run: its state is invalid, or the hypervisor met what it cannot do."""

    __slots__ = ("code", "instruction", "message", "operation")
    __match_args__ = ("code", "message")
    operation: str
    code: str
    """The hypervisor's name for the failure, with its numbers."""
    message: str
    instruction: bytes
    """The bytes at RIP, as many as the hypervisor fetched, if an instruction is the cause."""

    def __init__(self) -> None:
        self.instruction = b""

    def ignore(self) -> None:
        """Raise the failure as a HypervisorError: running on would only fail again."""
        raise HypervisorError(self.operation, self.code, self.message)

    def __repr__(self) -> str:
        return f"Failure(code={self.code!r}, message={self.message!r})"


@final
class OtherExit:
    """A reason that only this hypervisor has; ``vcpu.run_context`` says more.

    Where the guest waits for an answer, a hypercall's for instance, that goes into ``run_context``,
    and :meth:`complete` says that it is there.
    """

    __slots__ = ("_reply", "name", "reason")
    __match_args__ = ("reason",)
    reason: int
    name: str
    """What the hypervisor's header calls the reason."""

    def __init__(self, reason: int, name: str, reply: Reply | None = None) -> None:
        self.reason = reason
        self.name = name
        self._reply = reply

    def complete(self) -> None:
        """Say that the answer is in ``run_context``, if the guest waits for one."""
        if self._reply is not None:
            self._reply(self, 0)

    def ignore(self) -> None:
        """Tell the guest that there is no such service, if it waits for an answer."""
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
"""The exits that may wait for an answer."""
