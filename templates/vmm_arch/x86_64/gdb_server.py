"""A server for gdb with x86_64's registers."""

from __future__ import annotations

from collections.abc import Callable

from vmm_arch.debug import server
from vmm_arch.debug.cpu import EVERYTHING, Abilities
from vmm_arch.debug.server import LOCALHOST, Vm
from vmm_arch.devices.bus import Bus
from vmm_arch.x86_64 import gdb


class GdbServer(server.GdbServer):
    __doc__ = server.GdbServer.__doc__

    def __init__(
        self,
        vm: Vm,
        bus: Bus,
        address: tuple[str, int] = (LOCALHOST, 0),
        *,
        architecture: str | None = None,
        wait: bool = True,
        abilities: Abilities = EVERYTHING,
        say: Callable[[str], object] | None = None,
    ) -> None:
        """``architecture`` is ``"x86-64"`` or ``"i386"``; the rest is the neutral one's."""
        super().__init__(
            vm,
            bus,
            gdb,
            address,
            architecture=architecture,
            wait=wait,
            abilities=abilities,
            say=say,
        )
