"""Boots a kernel with the tables that it is told: for the nested machines.

A guest that says RENEW gets another generation id, and a PCI bus has one device.

``python3 boots_with_platform.py BACKEND PLATFORM CPUS KERNEL CMDLINE [TEXT]``, where PLATFORM is an
expression, and TEXT, once it has come on the console, ends the guest.
"""

from __future__ import annotations

import importlib
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

INITRD = Path("initrd.img")
RENEW = b"renew my id"


class PciFunction:
    """The configuration space of a bus with one function, 0:0.0, which is no more than there."""

    # vendor, device; no command, no status; revision 0, a host bridge; one function
    HEADER = bytes.fromhex("34120100 00000000 00000006 00000000").ljust(0x1000, b"\0")

    def read(self, offset: int, size: int) -> int:
        return (
            int.from_bytes(self.HEADER[offset : offset + size], "little") if offset < 0x1000 else -1
        )

    def write(self, offset: int, size: int, value: int) -> None:
        pass


def main(
    backend: str, platform: str, cpus: str, kernel: str, cmdline: str, until: str = ""
) -> None:
    arch: Any = importlib.import_module(f"vmm_arch.{backend}")
    memory = arch.GuestMemory(192 << 20)
    shown = bytearray()
    with arch.Vm(memory, vcpus=int(cpus), irqchip=True) as vm:
        line = arch.linux_cmdline(vm, cmdline)
        entry = arch.load_kernel(memory, kernel, cmdline=line, initrd=INITRD)
        described = eval(platform, vars(arch) | {"UUID": UUID})
        arch.configure_system(vm, entry, described)
        for vcpu in vm.vcpus:
            arch.configure_vcpu(vcpu, entry)
        bus = arch.Bus()
        if described.pci is not None:
            bus.attach_memory(described.pci.configuration, PciFunction())

        def show(data: bytes) -> None:
            os.write(1, data)
            shown.extend(data)
            if described.generation_id is not None and RENEW in shown[-1000:]:
                del shown[:]
                arch.renew_generation_id(vm)
            if until and until.encode() in shown[-1000:]:
                bus.stop()

        serial = arch.Serial16550(show, partial(vm.set_irq_line, 4))
        bus.attach_ports(range(0x3F8, 0x400), serial)
        arch.attach_pc_devices(bus, memory)
        print(arch.serve(vm, bus, timeout=300), file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
