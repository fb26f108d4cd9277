"""What ends a scenario that does not end by itself."""

from __future__ import annotations

import time
from threading import Event

from vmm_arch.errors import ClosedError, unsupported
from vmm_arch.selftest.watchdog import Watchdog


class Kicked:
    def __init__(self) -> None:
        self.count = 0

    def kick(self) -> None:
        self.count += 1


class Unkickable:
    def kick(self) -> None:
        raise unsupported("kick", "it never stops")


def test_a_vcpu_is_kicked_until_the_scenario_is_over() -> None:
    vcpu = Kicked()
    with Watchdog([vcpu], 60) as watchdog:
        watchdog.end("enough")
        while vcpu.count < 2:
            time.sleep(0.01)
    assert watchdog.verdict == "enough"


def test_a_hypervisor_that_cannot_kick_is_said_to_be_one() -> None:
    with Watchdog([Unkickable()], 60) as watchdog:
        watchdog.end("enough")
        while watchdog.verdict == "enough":
            time.sleep(0.01)
    assert watchdog.verdict == "enough; it cannot be ended: kick: ENOTSUP: it never stops"


def test_a_machine_that_the_scenario_has_closed_is_left_alone() -> None:
    kicked = Event()

    class Closed:
        def kick(self) -> None:
            kicked.set()
            raise ClosedError("the machine is closed")

    with Watchdog([Closed()], 0) as watchdog:
        assert kicked.wait(60)
    assert watchdog.verdict == "the scenario did not end within 0 s"
