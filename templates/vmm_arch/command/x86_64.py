"""The x86_64 part of the commands: see :class:`vmm_arch.command.cpu.Cpu`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import partial
from typing import Any, Final
from uuid import uuid4

from vmm_arch.boot.image import OtherProtocolError
from vmm_arch.breakpoint import HardwareBreakpoint, On
from vmm_arch.command import host
from vmm_arch.command.cpus import Cpus, completed
from vmm_arch.debug.cpu import Abilities
from vmm_arch.devices.description import MmioDevice
from vmm_arch.devices.serial import REGISTERS, Serial16550
from vmm_arch.devices.state import Field, Stateless
from vmm_arch.devices.virtio.block import VirtioBlock
from vmm_arch.devices.virtio.mmio import VirtioMmio
from vmm_arch.exits import Breakpoint
from vmm_arch.memory import GuestMemory
from vmm_arch.protocols.x86_64 import AnyVcpu, Backend, Machine
from vmm_arch.report import Check
from vmm_arch.selftest.x86_64.instructions import missing_instructions
from vmm_arch.x86_64 import core_dump, gdb
from vmm_arch.x86_64 import dump as dumps
from vmm_arch.x86_64.boot.kernel32 import BootModule
from vmm_arch.x86_64.boot.multiboot import load_multiboot
from vmm_arch.x86_64.boot.pvh import load_pvh
from vmm_arch.x86_64.bus import Bus
from vmm_arch.x86_64.cpuid import hypervisor_signature, identity
from vmm_arch.x86_64.entry import Entry, RealMode
from vmm_arch.x86_64.linux.cmdline import linux_cmdline
from vmm_arch.x86_64.linux.kernel import load_kernel
from vmm_arch.x86_64.platform.description import Platform
from vmm_arch.x86_64.platform.devices import LINES
from vmm_arch.x86_64.platform.generation import renew_generation_id
from vmm_arch.x86_64.platform.memory_map import HOLE
from vmm_arch.x86_64.platform.pc import DebugExit, attach_pc_devices
from vmm_arch.x86_64.platform.resources import GENERATION_LINE, SERIAL_LINE, SERIAL_PORT
from vmm_arch.x86_64.topology import Topology

DEBUG_EXIT_PORT: Final = 0xF4
VIRTIO_START: Final = 0xD000_0000
VIRTIO_SPACE: Final = 0x1000
"""For each device's registers: a page, so that nothing else is in it."""
DISK_LINES: Final = [line for line in LINES[5:] if line != GENERATION_LINE]
# mov al, 0x2a; out 0xe9, al; hlt
_SMALL_GUEST: Final = b"\xb0\x2a\xe6\xe9\xf4"
SMALL_GUEST_EXITS: Final = ("IoOut(port=0xe9, data=b'*', size=1)", "Halt()")


def run_small_guest(arch: Backend[AnyVcpu]) -> tuple[str, ...]:
    """Run a guest that writes to a port and halts."""
    with arch.GuestMemory(0x10000) as memory, arch.Vm(memory) as vm:
        memory.write(0x1000, _SMALL_GUEST)
        arch.configure_vcpu(vm.vcpus[0], RealMode(0x1000))
        return tuple(repr(vm.vcpus[0].run()) for _ in SMALL_GUEST_EXITS)


def operating_system(arch: Backend[AnyVcpu]) -> Check:
    """Check that the hypervisor executes the instructions that every operating system needs."""
    name = "an operating system"
    missing = missing_instructions(arch)
    if not missing:
        return Check(name, True, "the hypervisor executes the instructions that it needs")
    detail = (
        f"this hypervisor cannot execute {', '.join(missing)}, so a kernel crashes during boot;"
        " use a host with hardware virtualization (VMX or SVM)"
    )
    return Check(name, False, detail, required=False)


def processor(arch: Backend[AnyVcpu]) -> str:
    """Vendor, family, model and stepping from CPUID."""
    return identity(arch.supported_cpuid())


def signature(arch: Backend[AnyVcpu]) -> str:
    """The twelve characters of CPUID's leaf 0x40000000."""
    return hypervisor_signature(arch.supported_cpuid())


def is_virtual() -> bool:
    """Whether CPUID has the hypervisor bit, as Linux reports it."""
    return "hypervisor" in host.cpuinfo("flags").split()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments about ports and boot protocols."""
    parser.add_argument(
        "--protocol",
        choices=[AUTO, *LOADERS],
        help="how the kernel is loaded and entered (default: what its format says)",
    )
    parser.add_argument(
        "--debug-exit",
        type=port,
        nargs="?",
        const=DEBUG_EXIT_PORT,
        metavar="PORT",
        help=f"let the guest exit by writing to this port (default: {DEBUG_EXIT_PORT:#x})",
    )


def port(text: str) -> int:
    """Parse a port number."""
    try:
        number = int(text, 0)
    except ValueError:
        number = -1
    if not 0 <= number <= 0xFFFF:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a port number such as 0xf4; to use the default port, put the option last"
        )
    return number


def vcpus(wanted: Cpus | None) -> dict[str, Any]:
    """A topology; by default each vCPU is a core of one socket."""
    levels = [field.name for field in fields(Topology)]
    return {"topology": Topology(**completed(wanted or Cpus(), levels, ("cores", "sockets")))}


def load(vm: Machine[AnyVcpu], options: argparse.Namespace) -> tuple[Entry, str]:
    """Load the kernel by the protocol that is wanted, or else the one that its format says."""
    chosen = None if options.protocol == AUTO else options.protocol
    protocol = chosen or LINUX
    try:
        return LOADERS[protocol](vm, options), protocol
    except OtherProtocolError as other:
        if chosen is not None:
            raise
        return LOADERS[other.protocol](vm, options), other.protocol


def _load_linux(vm: Machine[AnyVcpu], options: argparse.Namespace) -> Entry:
    """Load a bzImage or an ELF vmlinux."""
    line = linux_cmdline(vm, options.append or "")
    return load_kernel(vm.memory, options.kernel, cmdline=line, initrd=options.initrd)


def _load_pvh(vm: Machine[AnyVcpu], options: argparse.Namespace) -> Entry:
    """Load a PVH kernel; most are Linux's."""
    line = linux_cmdline(vm, options.append or "")
    return load_pvh(vm.memory, options.kernel, cmdline=line, modules=_modules(options))


def _load_multiboot(vm: Machine[AnyVcpu], options: argparse.Namespace) -> Entry:
    """Load a Multiboot kernel, which gets the command line as it is given."""
    return load_multiboot(
        vm.memory, options.kernel, cmdline=options.append or "", modules=_modules(options)
    )


def _modules(options: argparse.Namespace) -> list[BootModule]:
    return [] if options.initrd is None else [BootModule(options.initrd)]


LINUX, AUTO = "linux", "auto"
LOADERS: Final[Mapping[str, Callable[[Machine[AnyVcpu], argparse.Namespace], Entry]]] = {
    LINUX: _load_linux,
    "pvh": _load_pvh,
    "multiboot": _load_multiboot,
}
"""The boot protocols; an initrd is the first module of those that have modules."""


def make_bus(
    vm: Machine[AnyVcpu],
    send: Callable[[bytes], object],
    options: argparse.Namespace,
    disks: Sequence[VirtioBlock],
) -> tuple[Bus, Serial16550]:
    """Make a bus with the first serial port, the PC devices that Linux needs, and disks."""
    bus = Bus()
    serial = Serial16550(send, partial(vm.set_irq_line, SERIAL_LINE), wait_for_listener=True)
    bus.attach_ports(range(SERIAL_PORT, SERIAL_PORT + REGISTERS), serial)
    attach_pc_devices(bus, vm.memory)
    if options.debug_exit is not None:
        bus.attach_ports(range(options.debug_exit, options.debug_exit + 1), DebugExit(bus.stop))
    for place, disk in zip(_places(len(disks)), disks, strict=True):
        transport = VirtioMmio(vm.memory, disk, partial(vm.set_irq_line, place.line))
        bus.attach_memory(place.addresses, transport)
    return bus, serial


def configure_system(
    arch: Backend[AnyVcpu], vm: Machine[AnyVcpu], entry: Entry, disks: int
) -> None:
    """Write what the guest finds in memory: tables that tell it of the disks and of its id as well."""
    platform = Platform(generation_id=uuid4(), devices=_places(disks))
    arch.configure_system(vm, entry, platform)


def renew_identity(vm: Machine[AnyVcpu]) -> None:
    """Give the guest another generation id."""
    renew_generation_id(vm)


def _places(count: int) -> list[MmioDevice]:
    """Disks' registers are in the gap below 4 GiB, each with an interrupt line of its own."""
    if count > len(DISK_LINES):
        raise ValueError(f"{count} disks: there are interrupt lines for {len(DISK_LINES)}")
    return [
        MmioDevice(range(address, address + VIRTIO_SPACE), line)
        for address, line in zip(
            range(VIRTIO_START, HOLE.stop, VIRTIO_SPACE), DISK_LINES[:count], strict=False
        )
    ]


class PortOrNone:
    """The value of an option about a port."""

    def accepts(self, value: Any) -> bool:
        return value is None or (type(value) is int and 0 <= value <= 0xFFFF)

    def __str__(self) -> str:
        return "a port's number or null"


DEVICE_OPTIONS: Final[Mapping[str, Field]] = {"debug_exit": PortOrNone()}


class Notifier(Stateless):
    """A port that calls a function when it is written to."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call

    def read(self, offset: int, size: int) -> int:
        """Zero."""
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Call the function, whatever is written."""
        self._call()


def attach_notifier(bus: Bus, place: int, call: Callable[[], object]) -> None:
    """Call a function when the guest writes to this port. Raises ValueError if it is not free."""
    bus.attach_ports(range(place, place + 1), Notifier(call))


def registers(vcpu: AnyVcpu) -> tuple[Any, Any]:
    """The general registers, and the special ones."""
    return vcpu.get_regs(), vcpu.get_sregs()


def next_instruction(registers: tuple[Any, Any]) -> int:
    """RIP."""
    return int(registers[0].rip)


def describe(registers: tuple[Any, Any], memory: GuestMemory) -> Iterator[str]:
    """Describe registers, and what they point to, line by line."""
    return dumps.describe(*registers, memory)


dump = dumps.dump
was_reset = dumps.is_after_init

DEBUGGING = gdb
save_core = core_dump.save_core


# mov byte [0x1100], 1; hlt
_STORES: Final = b"\xc6\x06\x00\x11\x01\xf4"


def debugging_abilities(arch: Backend[AnyVcpu]) -> Abilities:
    """Whether INT3 is reported, which emulation does not even execute, and watchpoints."""
    return Abilities("int3" not in missing_instructions(arch), _watches(arch))


def _watches(arch: Backend[AnyVcpu]) -> bool:
    if "set_breakpoints" in arch.UNSUPPORTED:
        return False
    with arch.GuestMemory(0x10000) as memory, arch.Vm(memory) as vm:
        memory.write(0x1000, _STORES)
        arch.configure_vcpu(vm.vcpus[0], RealMode(0x1000))
        vm.vcpus[0].set_breakpoints([HardwareBreakpoint(0x1100, On.WRITE)])
        return isinstance(vm.vcpus[0].run(), Breakpoint)


def debugged_architecture(options: argparse.Namespace) -> str | None:
    """i386 for an ELF file of 32 bits; x86-64 for other kernels, in whatever mode they begin."""
    if options.kernel is None:
        return None
    with open(options.kernel, "rb") as kernel:
        return "i386" if kernel.read(5) == b"\x7fELF\x01" else "x86-64"
