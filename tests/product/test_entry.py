"""Entries that no machine could begin at are refused when they are made."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from vmm_arch.x86_64.entry import Entry, Long64, Protected32, RealMode


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Long64(-1), "address=-0x1 is not an unsigned 64-bit value"),
        (lambda: Long64(1 << 32), "beyond the first 4 GiB"),
        (lambda: Long64(0xA000), "0xa000 would be overwritten: page_tables takes 0x6000"),
        (lambda: Protected32(0x510), "overwritten: gdt takes 0x30 bytes from 0x500"),
        (lambda: Long64(0x1000, page_tables=0x8123), "0x8123 is not a multiple of 0x1000"),
        (lambda: RealMode(0x100000), "real mode cannot reach 0x100000"),
        (lambda: RealMode(0, rsp=1 << 64), "rsp=0x10000000000000000 is not an unsigned 64-bit"),
    ],
)
def test_an_entry_that_cannot_be(make: Callable[[], Entry], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make()


def test_an_entry_of_another_type() -> None:
    with pytest.raises(TypeError, match="address: expected int, got NoneType"):
        Long64(None)  # type: ignore[arg-type]
