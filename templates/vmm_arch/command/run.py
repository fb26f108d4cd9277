"""``vmm-arch run``: boots a Linux kernel, or goes on with a saved machine.

The reference VMM, over what every backend offers.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from time import monotonic
from typing import Any, Final

from vmm_arch.boot.image import KernelImageError
from vmm_arch.command import backends, core, counts, cpus, disks, gdb, save
from vmm_arch.command.messages import report_error, say
from vmm_arch.command.outlet import Gate, Outlet, flush_standard
from vmm_arch.command.report import History, report, statistics
from vmm_arch.command.terminal import Terminal
from vmm_arch.ending import Ending, Reason
from vmm_arch.serve import serve

USAGE_ERROR: Final = 2
STATUS: Final = {
    Reason.POWER_OFF: 0,
    Reason.SAVED: 0,
    Reason.SHUTDOWN: 3,
    Reason.HALTED: 4,
    Reason.FAILED: 5,
    Reason.SYSTEM_EVENT: 6,
    Reason.PANIC: 7,
    Reason.RESET: 8,
    Reason.TIMEOUT: 124,
    Reason.STOPPED: 130,
}
"""The exit status for each reason that a guest ends, except DEBUG_EXIT."""
BAD: Final = (Reason.SHUTDOWN, Reason.HALTED, Reason.FAILED, Reason.TIMEOUT)
"""The endings after which the guest's state is reported; Linux reports its panics itself."""
MEMORY: Final = 512 << 20
EXIT, DUMP, RESTART = "exit", "dump", "restart"
NOT_SAVED: Final = 9
"""The exit status if the guest powered off before an event of ``--save-on`` came."""
BOOTING: Final = ("kernel", "initrd", "append", "memory", "cpus", "protocol")
"""The options that only a boot needs."""
SIGNALLED: Final = 128
"""A shell's exit status for a command ended by a signal: this plus the signal's number."""
BROKEN_PIPE: Final = SIGNALLED + 13
PATIENCE: Final = 5.0
"""Seconds that the report waits for a reader that does not read."""

EPILOG: Final = f"""\
Standard input and output are the guest's serial console, ttyS0. On a terminal, Control-] ends the
guest; on Windows, where input arrives line by line, press Enter after it.

{save.EPILOG}
exit status:
  0  the guest powered off, or was saved
  2  usage error, or something is missing; the message says what
  3  triple fault              4  every CPU halted for good
  5  a CPU cannot run on       6  the guest called its firmware
  7  the guest's kernel panicked (Linux 5.2 or newer, or one with a pvpanic driver)
  8  the guest reset the machine
  9  the guest powered off before it was saved
  124 timeout                  130 ended from the keyboard
  141 output pipe closed       128 + N: ended by signal N
  with --debug-exit: 2 * the value written + 1; write 8 or more to avoid the statuses above
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "kernel",
        nargs="?",
        type=Path,
        help="a bzImage (vmlinuz), or an ELF file: Linux (vmlinux), PVH, Multiboot",
    )
    parser.add_argument(
        "--initrd",
        type=Path,
        metavar="FILE",
        help="the initial RAM disk; for other kernels than Linux, the first module",
    )
    parser.add_argument("--append", metavar="TEXT", help="append this to the kernel's command line")
    parser.add_argument(
        "--memory",
        type=size,
        metavar="SIZE",
        help=f"guest memory, such as 512M or 4G (default: {MEMORY >> 20}M)",
    )
    disks.add_arguments(parser)
    backends.add_argument(parser)
    cpus.add_arguments(parser)
    save.add_arguments(parser)
    parser.add_argument(
        "--timeout", type=float, metavar="SECONDS", help="end the guest after this time"
    )
    parser.add_argument(
        "--on-reset",
        choices=[EXIT, RESTART],
        default=EXIT,
        help="when the guest resets the machine: end, or boot a new one (default: %(default)s)",
    )
    parser.add_argument(
        "--on-panic",
        choices=[EXIT, DUMP, RESTART],
        default=EXIT,
        help="when the guest's kernel panics: end, report its state and end, or boot a new machine"
        " (default: %(default)s)",
    )
    with suppress(backends.MissingPartError):  # run() raises it again and reports it
        backends.cpu().add_arguments(parser)
    parser.add_argument(
        "--single-step",
        action="store_true",
        help="single-step the first CPU, to find the place of a triple fault; about a thousand"
        " times slower",
    )
    gdb.add_arguments(parser)
    core.add_arguments(parser)
    counts.add_arguments(parser)
    parser.add_argument("--trace", action="store_true", help="show every exit on standard error")
    parser.add_argument(
        "-q", "--quiet", action="store_true", help="do not print statistics at the end"
    )


def size(text: str) -> int:
    """Parse a size in bytes, with K, M, G or T for powers of 1,024."""
    found = re.fullmatch(r"(\d+)([KMGT]?)", text.upper())
    number = int(found[1]) << 10 * " KMGT".find(found[2] or " ") if found else 0
    if number == 0 or number % 0x1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 512M or 4G")
    return number


def run(options: argparse.Namespace) -> int:
    """Boot the kernel, or go on, and return the exit status for the guest's ending."""
    try:
        save.check(options, BOOTING)
        gdb.check(options)
        core.check(options)
        with ExitStack() as stack:
            console = Console(stack)
            saver = save.Saver(options, stack, console.say)
            ending = boot_until_it_ends(options, console, saver)
    except (KernelImageError, OSError, ValueError) as error:
        report_error("run", error)
        return USAGE_ERROR
    if console.terminal.signal is not None:
        return SIGNALLED + console.terminal.signal
    if console.output.broken:
        say("vmm-arch run: the reader of standard output has closed it")
        return BROKEN_PIPE
    if ending.reason is Reason.POWER_OFF and options.save is not None and not saver.saved:
        events = " or ".join(wanted.text for wanted in options.save_on)
        say(f"vmm-arch run: {options.save} was not written: {events} did not come")
        return NOT_SAVED
    return status(ending)


def status(ending: Ending) -> int:
    """The exit status for an ending."""
    if ending.reason is Reason.DEBUG_EXIT:
        return ((ending.code or 0) << 1 | 1) & 0xFF
    return STATUS[ending.reason]


class Console:
    """The user's terminal, and output that cannot block once the guest has ended."""

    def __init__(self, stack: ExitStack) -> None:
        flush_standard()
        self.gate = Gate()
        stack.callback(self.gate.release)
        self.output, self.errors = Outlet(1, self.gate), Outlet(2, self.gate)
        self.terminal = stack.enter_context(Terminal())

    def say(self, text: str, end: str = "\r\n") -> None:
        """Write lines on standard error; the terminal may be raw."""
        lines = f"{text}\n".replace("\n", end if self.terminal.is_terminal else "\n")
        self.errors.write(lines.encode(errors="backslashreplace"), PATIENCE)

    @property
    def status(self) -> Callable[[bytes], object] | None:
        """What writes to the terminal on standard error; None if there is none."""
        return self.errors.write if self.terminal.is_terminal and os.isatty(2) else None


def boot_until_it_ends(options: argparse.Namespace, console: Console, saver: save.Saver) -> Ending:
    """Boot machines, one after the other, until one ends for a reason that is not to reboot."""
    again = {
        reason
        for reason, choice in ((Reason.RESET, options.on_reset), (Reason.PANIC, options.on_panic))
        if choice == RESTART
    }
    if console.terminal.is_terminal and not options.quiet:
        console.say("Control-] ends the guest.")
    deadline = None if options.timeout is None else monotonic() + options.timeout
    while True:
        with ExitStack() as stack:
            ending = boot(options, stack, console, saver, deadline)
        if ending.reason not in again or console.terminal.signal is not None:
            break
    if ending.reason is Reason.FAILED and not options.quiet:
        check = backends.cpu().operating_system(backends.backend(options.hypervisor))
        if not check.available:
            console.say(f"vmm-arch: {check.detail}")
    return ending


def boot(
    options: argparse.Namespace,
    stack: ExitStack,
    console: Console,
    saver: save.Saver,
    deadline: float | None,
) -> Ending:
    """Create a machine, run it until its guest ends, and report."""
    arch, cpu = backends.backend(options.hypervisor), backends.cpu()
    snapshot = None
    opened = disks.opened(options, stack)
    if options.restore is None:
        vm = new_machine(options, stack, console)
    else:
        snapshot = stack.enter_context(save.load(arch, options, cpu))
        vm = stack.enter_context(snapshot.fork(catch_up=options.catch_up))
    if options.single_step:
        vm.vcpus[0].step(True)

    def write(data: bytes) -> None:
        console.output.write(data)
        saver.note(data)
        if console.output.broken:
            bus.stop()

    bus, console_line = cpu.make_bus(vm, write, options, opened)
    saver.connect(vm, bus, cpu)
    if not options.trace:  # which is to show every access
        bus.coalesce(vm)
    if snapshot is not None:
        save.restore_devices(bus, snapshot, options)
        if options.new_id:
            cpu.renew_identity(vm)
    history = History(cpu, vm.vcpus, console.say if options.trace else None)
    console.gate.open()
    console.terminal.connect(console_line, bus.stop)
    left = None if deadline is None else max(deadline - monotonic(), 0)
    debugger = gdb.connect(options, stack, arch, cpu, vm, bus, console.say)
    counted = counts.count(options, vm, console.say)
    with counts.Title(history, console.status if options.stats else None):
        ending = serve(
            vm, bus, timeout=left, trace=history.note, on_end=console.gate.close, debugger=debugger
        )
    if debugger is not None:
        debugger.close(status(ending))

    if ending.reason in BAD or (ending.reason is Reason.PANIC and options.on_panic == DUMP):
        console.say("\n" + "\n".join(report(ending, vm.vcpus, vm.memory, history)))
    core.write(options, cpu, vm, ending, console.say)
    if counted is not None:
        console.say("\n" + "\n".join(counted.lines()))
    if not options.quiet:
        console.say(f"\n{statistics(ending)}")
    return ending


def new_machine(options: argparse.Namespace, stack: ExitStack, console: Console) -> Any:
    """Create a machine with the kernel in its memory, ready to enter it."""
    arch, cpu = backends.backend(options.hypervisor), backends.cpu()
    memory = stack.enter_context(arch.GuestMemory(options.memory or MEMORY))
    vm = stack.enter_context(arch.Vm(memory, irqchip=True, **cpu.vcpus(options.cpus)))
    entry, protocol = cpu.load(vm, options)
    if not options.quiet:
        console.say(f"{options.kernel}: boot protocol {protocol}, entered at {entry.address:#x}")
    cpu.configure_system(arch, vm, entry, len(options.disk))
    for vcpu in vm.vcpus:
        arch.configure_vcpu(vcpu, entry)
    return vm
