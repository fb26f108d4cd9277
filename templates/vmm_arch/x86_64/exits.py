"""The exits that only x86_64 makes: accesses to ports and MSRs, and its interrupts.

An MSR access must be answered like a read; ``refuse()`` turns it into #GP. See :mod:`vmm_arch.exits`.
"""

from __future__ import annotations

from typing import TypeAlias, final

from vmm_arch.exits import CommonExit, Notice, PlainExit, ReadExit, Reply, WriteExit
from vmm_arch.x86_64.msr import msr_text


@final
class IoIn(ReadExit):
    """The guest reads a port: ``count`` times ``size`` bytes (more than once for INS)."""

    __slots__ = ("port",)
    __match_args__ = ("port", "size")
    port: int

    def __repr__(self) -> str:
        return f"IoIn(port={self.port:#x}, size={self.size}, count={self.count})"


@final
class IoOut(WriteExit):
    """The guest writes a port: ``count`` values of ``size`` bytes (more than one for OUTS).

    ``data`` has all of them, concatenated.
    """

    __slots__ = ("count", "port", "size")
    __match_args__ = ("port", "data")
    port: int
    size: int
    count: int

    @property
    def value(self) -> int:
        """The first value as an integer."""
        return int.from_bytes(self.data[: self.size], "little")

    def __repr__(self) -> str:
        return f"IoOut(port={self.port:#x}, data={self.data!r}, size={self.size})"


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
        return f"MsrRead(index={msr_text(self.index)})"


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
        return f"MsrWrite(index={msr_text(self.index)}, value={self.value:#x})"


@final
class InterruptWindow(PlainExit):
    """The guest can accept an interrupt now; see ``request_interrupt_window()``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "InterruptWindow()"


@final
class EndOfInterrupt(Notice):
    """The guest acknowledged a level-triggered interrupt of this vector."""

    __slots__ = ("vector",)
    __match_args__ = ("vector",)
    vector: int

    def __repr__(self) -> str:
        return f"EndOfInterrupt(vector={self.vector})"


Exit: TypeAlias = CommonExit | IoIn | IoOut | MsrRead | MsrWrite | InterruptWindow | EndOfInterrupt
"""Everything that ``run()`` returns."""
