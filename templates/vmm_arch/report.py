"""What a host can do, as ``probe()`` reports it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that a backend needs or can use."""

    name: str
    available: bool
    detail: str
    """What was found, or what is missing and how to get it."""
    required: bool = True


@dataclass(frozen=True, slots=True)
class Report:
    """The result of ``probe()``: true if the backend works on this host; printable."""

    hypervisor: str
    checks: tuple[Check, ...]

    def __bool__(self) -> bool:
        return all(check.available or not check.required for check in self.checks)

    def __str__(self) -> str:
        lines = [f"{self.hypervisor}: {'works' if self else 'does not work'} on this host"]
        for check in self.checks:
            sign = "yes" if check.available else "NO" if check.required else "no"
            lines.append(f"  {sign:3}  {check.name}: {check.detail}")
        return "\n".join(lines)
