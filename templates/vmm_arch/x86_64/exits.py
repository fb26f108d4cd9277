"""The exits that only x86_64 makes: accesses to ports and MSRs, CPUID, its exceptions and interrupts.

An MSR access must be answered like a read; ``refuse()`` turns it into #GP. See :mod:`vmm_arch.exits`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, final

from vmm_arch.exits import CommonExit, Notice, PlainExit, ReadExit, Reply, WriteExit
from vmm_arch.x86_64.cpuid import CpuidEntry
from vmm_arch.x86_64.msr import msr_text

CpuidReply: TypeAlias = Callable[[Any, tuple[int, int, int, int]], None]
"""How CPUID gets its answer: the exit, EAX, EBX, ECX and EDX."""


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
class Cpuid:
    """The guest executes CPUID for a leaf of ``intercept_cpuid()``, and waits for an answer."""

    __slots__ = ("_reply", "default", "function", "index")
    __match_args__ = ("function", "index")
    function: int
    """EAX: the leaf."""
    index: int
    """ECX: the subleaf, which many leaves do not look at."""
    default: CpuidEntry
    """What the vCPU's own CPUID says."""

    def __init__(self, function: int, index: int, default: CpuidEntry, reply: CpuidReply) -> None:
        self.function = function
        self.index = index
        self.default = default
        self._reply = reply

    def complete(self, eax: int, ebx: int, ecx: int, edx: int) -> None:
        """Answer with four registers of 32 bits. Raises ValueError if one does not fit."""
        answer = eax, ebx, ecx, edx
        for value in answer:
            if not 0 <= value < 1 << 32:
                raise ValueError(f"{value:#x} is not an unsigned 4-byte value")
        self._reply(self, answer)

    def ignore(self) -> None:
        """Answer with :attr:`default`."""
        default = self.default
        self._reply(self, (default.eax, default.ebx, default.ecx, default.edx))

    def __repr__(self) -> str:
        return f"Cpuid(function={self.function:#x}, index={self.index:#x})"


@final
class GuestException(PlainExit):
    """The guest's instruction raises an exception of ``intercept_exceptions()``.

    The exception has not been delivered: the vCPU stands before the instruction, which is executed
    again unless the exit is ignored or RIP changed.
    """

    __slots__ = ("_reply", "cr2", "error_code", "instruction", "rip", "vector")
    __match_args__ = ("vector", "error_code")
    vector: int
    error_code: int | None
    """None for a vector without."""
    rip: int
    cr2: int | None
    """For a page fault the guest-virtual address; the register CR2 has not changed yet."""
    instruction: bytes
    """Its first bytes, as far as the hypervisor fetched them."""

    def __init__(
        self,
        vector: int,
        error_code: int | None,
        rip: int,
        cr2: int | None,
        instruction: bytes,
        reply: Reply,
    ) -> None:
        self.vector = vector
        self.error_code = error_code
        self.rip = rip
        self.cr2 = cr2
        self.instruction = instruction
        self._reply = reply

    def ignore(self) -> None:
        """Let the guest have the exception."""
        self._reply(self, None)

    def __repr__(self) -> str:
        code = "" if self.error_code is None else f", error_code={self.error_code:#x}"
        cr2 = "" if self.cr2 is None else f", cr2={self.cr2:#x}"
        return f"GuestException(vector={self.vector}{code}, rip={self.rip:#x}{cr2})"


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


Exit: TypeAlias = (
    CommonExit
    | IoIn
    | IoOut
    | MsrRead
    | MsrWrite
    | Cpuid
    | GuestException
    | InterruptWindow
    | EndOfInterrupt
)
"""Everything that ``run()`` returns."""
