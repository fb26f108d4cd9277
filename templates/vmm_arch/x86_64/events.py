"""The pending events of a vCPU: exceptions, interrupts, NMIs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Events:
    """Pending events, and what blocks them."""

    exception: int | None = None
    """The vector of the pending exception."""
    interrupt: int | None = None
    """The vector of the pending interrupt; those in the local APIC are not included."""
    nmi: bool = False
    nmi_masked: bool = False
    """Whether NMIs are blocked because one is being handled, until IRET."""
    interrupt_shadow: bool = False
    """Whether interrupts are blocked for one instruction, after STI or a load of SS."""

    def __str__(self) -> str:
        parts = []
        if self.exception is not None:
            parts.append(f"exception {self.exception}")
        if self.interrupt is not None:
            parts.append(f"interrupt {self.interrupt:#x}")
        parts += ["NMI"] * self.nmi + ["NMIs masked"] * self.nmi_masked
        parts += ["interrupt shadow"] * self.interrupt_shadow
        return ", ".join(parts) or "nothing"
