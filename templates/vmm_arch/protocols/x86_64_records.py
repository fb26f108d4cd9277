"""The records of x86_64's contract: what the operations of every backend's vCPU read and write.

A backend has records of its own, views over the hypervisor's buffer, with these attributes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class Segment(Protocol):
    """A segment register with its hidden part (Intel SDM volume 3, 3.4.3)."""

    base: int
    limit: int
    """In bytes, whatever the granularity says."""
    selector: int
    type: int
    s: int
    dpl: int
    present: int
    avl: int
    l: int  # noqa: E741 - the field's name
    db: int
    g: int


class Table(Protocol):
    """GDTR or IDTR."""

    base: int
    limit: int


class Regs(Protocol):
    """The general registers."""

    rax: int
    rbx: int
    rcx: int
    rdx: int
    rsi: int
    rdi: int
    rsp: int
    rbp: int
    r8: int
    r9: int
    r10: int
    r11: int
    r12: int
    r13: int
    r14: int
    r15: int
    rip: int
    rflags: int


class Sregs(Protocol):
    """Segments, descriptor tables and control registers. Each segment is a view, not a copy."""

    cr0: int
    cr2: int
    cr3: int
    cr4: int
    cr8: int
    efer: int
    apic_base: int

    @property
    def cs(self) -> Segment: ...
    @property
    def ds(self) -> Segment: ...
    @property
    def es(self) -> Segment: ...
    @property
    def fs(self) -> Segment: ...
    @property
    def gs(self) -> Segment: ...
    @property
    def ss(self) -> Segment: ...
    @property
    def tr(self) -> Segment: ...
    @property
    def ldt(self) -> Segment: ...
    @property
    def gdt(self) -> Table: ...
    @property
    def idt(self) -> Table: ...


class Fpu(Protocol):
    """x87 and SSE state, under the names of the FXSAVE area (Intel SDM volume 1, 10.5.1)."""

    fcw: int
    fsw: int
    ftw: int
    fop: int
    fip: int
    fdp: int
    mxcsr: int

    @property
    def st(self) -> Sequence[Any]: ...
    @property
    def xmm(self) -> Sequence[Any]: ...


class Lapic(Protocol):
    """The local APIC's registers by their offset in its page: ``lapic[0x350]`` is LVT LINT0."""

    def __getitem__(self, offset: int, /) -> int: ...
    def __setitem__(self, offset: int, value: int, /) -> None: ...
