"""What a vCPU has yet to take: exceptions, interrupts, NMIs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Events:
    """What is pending, and what keeps it from being taken."""

    exception: int | None = None
    """The vector of an exception that the guest takes next."""
    interrupt: int | None = None
    """The vector of an interrupt that the guest takes next; the local APIC's own are not here."""
    nmi: bool = False
    nmi_masked: bool = False
    """Whether an NMI is being handled, until IRET."""
    interrupt_shadow: bool = False
    """Whether the last instruction was STI or loaded SS, which holds interrupts back for one more."""

    def __str__(self) -> str:
        parts = []
        if self.exception is not None:
            parts.append(f"exception {self.exception}")
        if self.interrupt is not None:
            parts.append(f"interrupt {self.interrupt:#x}")
        parts += ["NMI"] * self.nmi + ["NMIs masked"] * self.nmi_masked
        parts += ["interrupt shadow"] * self.interrupt_shadow
        return ", ".join(parts) or "nothing"
