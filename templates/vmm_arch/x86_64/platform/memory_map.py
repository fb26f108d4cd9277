"""Where guest memory lies on x86_64."""

from __future__ import annotations

from typing import ClassVar

from vmm_arch import memory


class GuestMemory(memory.GuestMemory):
    """Guest memory laid out around the last GiB below 4 GiB, which is for devices and firmware."""

    HOLES: ClassVar[tuple[range, ...]] = (range(0xC0000000, 1 << 32),)
