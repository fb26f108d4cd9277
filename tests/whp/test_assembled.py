"""Guests' code wherever the tests run: assembled here, or before."""

from __future__ import annotations

from guests import assemble, halt

from whp.assembled import GUESTS


def test_a_guests_code() -> None:
    code = assemble.assemble(GUESTS / "halt.S", halt.MACHINE.origin)
    assert code == bytes.fromhex("bb 04 10 f4 bb 08 10 f4")
