"""``vmm-arch run``: boots a Linux kernel. The reference VMM, over what every backend offers."""

from __future__ import annotations

import argparse
import re
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from vmm_arch.boot.image import KernelImageError
from vmm_arch.command import backends
from vmm_arch.command.dump import dump
from vmm_arch.command.terminal import Terminal
from vmm_arch.devices.bus import Bus
from vmm_arch.devices.serial import Serial16550
from vmm_arch.ending import Ending, Reason
from vmm_arch.exits import Exit
from vmm_arch.serve import serve
from vmm_arch.x86_64.linux.cmdline import linux_cmdline
from vmm_arch.x86_64.linux.kernel import load_kernel
from vmm_arch.x86_64.platform.acpi import SERIAL_LINE, SERIAL_PORT
from vmm_arch.x86_64.platform.pc import DebugExit, attach_pc_devices

WRONG_USE: Final = 2
STATUS: Final = {
    Reason.POWER_OFF: 0,
    Reason.SHUTDOWN: 3,
    Reason.HALTED: 4,
    Reason.FAILED: 5,
    Reason.SYSTEM_EVENT: 6,
    Reason.PANIC: 7,
    Reason.RESET: 8,
    Reason.TIMEOUT: 124,
    Reason.STOPPED: 130,
}
"""The exit status for each way in which a guest can end, but for DEBUG_EXIT."""
BAD: Final = (Reason.SHUTDOWN, Reason.HALTED, Reason.FAILED, Reason.TIMEOUT)
"""The endings after which one wants to know where the guest was; Linux shows its panics itself."""
EXIT, DUMP, RESTART = "exit", "dump", "restart"
DEBUG_EXIT_PORT: Final = 0xF4

EPILOG: Final = """\
Standard input and output are the guest's serial console, ttyS0. On a terminal Control-] ends it;
on Windows, where keys arrive line by line, Enter behind it.

exit status:
  0  the guest switched itself off
  2  wrong use, or something is missing; the message says what
  3  triple fault              4  every CPU halted for good
  5  a CPU cannot go on        6  the guest called its firmware
  7  the guest's kernel panicked (Linux 5.2 or newer, or one with a pvpanic driver)
  8  the guest reset the machine
  124 timeout                  130 ended from the keyboard
  with --debug-exit: twice what the guest wrote, and 1; let it write 8 or more
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("kernel", type=Path, help="a bzImage (vmlinuz) or an ELF vmlinux")
    parser.add_argument("--initrd", type=Path, metavar="FILE", help="the initial RAM disk")
    parser.add_argument(
        "--append", default="", metavar="TEXT", help="put this behind the kernel's command line"
    )
    parser.add_argument(
        "--memory",
        type=size,
        default="512M",
        metavar="SIZE",
        help="such as 512M or 4G (%(default)s)",
    )
    backends.add_argument(parser)
    parser.add_argument("--cpus", type=int, default=1, metavar="N", help="how many (%(default)s)")
    parser.add_argument(
        "--timeout", type=float, metavar="SECONDS", help="end the guest after this time"
    )
    parser.add_argument(
        "--on-reset",
        choices=[EXIT, RESTART],
        default=EXIT,
        help="if the guest resets the machine: end, or begin anew with a new one (%(default)s)",
    )
    parser.add_argument(
        "--on-panic",
        choices=[EXIT, DUMP, RESTART],
        default=EXIT,
        help="if the guest's kernel panics: end, show where it was and end, or begin anew"
        " (%(default)s)",
    )
    parser.add_argument(
        "--debug-exit",
        type=port,
        nargs="?",
        const=DEBUG_EXIT_PORT,
        metavar="PORT",
        help=f"let the guest end itself by a write to this port ({DEBUG_EXIT_PORT:#x})",
    )
    parser.add_argument("--trace", action="store_true", help="show every exit on standard error")
    parser.add_argument("-q", "--quiet", action="store_true", help="no statistics at the end")


def size(text: str) -> int:
    """Read a size in bytes, with K, M, G or T for powers of 1,024."""
    found = re.fullmatch(r"(\d+)([KMGT]?)", text.upper())
    number = int(found[1]) << 10 * " KMGT".find(found[2] or " ") if found else 0
    if number == 0 or number % 0x1000:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 512M or 4G")
    return number


def port(text: str) -> int:
    """Read a port's number."""
    try:
        number = int(text, 0)
    except ValueError:
        number = -1
    if not 0 <= number <= 0xFFFF:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a port number such as 0xf4; for the usual port put the option last"
        )
    return number


def run(options: argparse.Namespace) -> int:
    """Boot the kernel and return the exit status of how its guest ended."""
    again = {
        reason
        for reason, choice in ((Reason.RESET, options.on_reset), (Reason.PANIC, options.on_panic))
        if choice == RESTART
    }
    try:
        while True:
            with ExitStack() as stack:
                ending = boot(options, stack)
            if ending.reason not in again:
                return status(ending)
    except (KernelImageError, OSError, ValueError) as error:
        print(f"vmm-arch run: {error}", file=sys.stderr)
        return WRONG_USE


def status(ending: Ending) -> int:
    """The exit status that tells how a guest ended."""
    if ending.reason is Reason.DEBUG_EXIT:
        return ((ending.code or 0) << 1 | 1) & 0xFF
    return STATUS[ending.reason]


def boot(options: argparse.Namespace, stack: ExitStack) -> Ending:
    """Make the machine, run it until its guest ends, and report."""
    arch = backends.backend(options.hypervisor)
    memory = stack.enter_context(arch.GuestMemory(options.memory))
    vm = stack.enter_context(arch.Vm(memory, vcpus=options.cpus, irqchip=True))
    cmdline = linux_cmdline(vm, options.append)
    entry = load_kernel(memory, options.kernel, cmdline=cmdline, initrd=options.initrd)
    arch.configure_system(vm, entry)
    for vcpu in vm.vcpus:
        arch.configure_vcpu(vcpu, entry)

    bus = Bus()
    terminal = Terminal(typed=lambda data: serial.receive(data), escaped=bus.stop)
    serial = Serial16550(terminal.write, partial(vm.set_irq_line, SERIAL_LINE))
    bus.attach_ports(range(SERIAL_PORT, SERIAL_PORT + 8), serial)
    attach_pc_devices(bus, memory)
    if options.debug_exit is not None:
        bus.attach_ports(range(options.debug_exit, options.debug_exit + 1), DebugExit(bus.stop))
    if terminal.is_terminal and not options.quiet:
        print("Control-] ends the guest.", file=sys.stderr)
    with terminal:
        ending = serve(vm, bus, timeout=options.timeout, trace=trace if options.trace else None)

    if ending.reason in BAD or (ending.reason is Reason.PANIC and options.on_panic == DUMP):
        print(f"\n{dump(vm.vcpus[ending.vcpu or 0], memory)}", file=sys.stderr)
    if not options.quiet:
        print(f"\n{statistics(ending)}", file=sys.stderr)
    return ending


def trace(index: int, exit: Exit) -> None:
    """Show an exit; the terminal may be raw."""
    print(f"vCPU {index}: {exit!r}", end="\r\n", file=sys.stderr)


def statistics(ending: Ending) -> str:
    """Say how the guest ended and what it asked for."""
    kinds = ", ".join(
        f"{count} {kind}" for kind, count in sorted(ending.exits.items(), key=lambda item: -item[1])
    )
    return f"vmm-arch: {ending}" + (f" ({kinds})" if kinds else "")
