"""Runs one program of kvm-unit-tests in a machine of this package's API.

    python tests/kvm_unit_tests/machine.py --cpus 2 x86/smptest.flat

The program's output is standard output. The exit status is QEMU's with isa-debug-exit: the number
that the program ends with, doubled, plus 1.
"""

from __future__ import annotations

import argparse
import importlib
import platform
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a command: imports begin in the folder above
    _TESTS = Path(__file__).resolve().parents[1]
    sys.path[:1] = [str(_TESTS), str(_TESTS / "support")]

from vmm_arch.abi.kvm_x86_64 import KVM_X86_SETUP_MCE
from vmm_arch.boot.image import KernelImageError
from vmm_arch.devices.serial import Serial16550
from vmm_arch.ending import Ending, Reason
from vmm_arch.serve import serve
from vmm_arch.x86_64.boot.kernel32 import BootModule
from vmm_arch.x86_64.boot.multiboot import load_multiboot
from vmm_arch.x86_64.bus import Bus
from vmm_arch.x86_64.platform.pc import Cmos
from vmm_arch.x86_64.platform.resources import (
    CMOS_DATA_PORT,
    CMOS_INDEX_PORT,
    SERIAL_LINE,
    SERIAL_PORT,
)

from kvm_unit_tests.comparison import RESET, STUCK, TIMEOUT
from kvm_unit_tests.devices import attach_test_devices
from kvm_unit_tests.processor import MODEL, Unsupported, cpuid, read_processor

WRONG_USE = 2
MACHINE_CHECKS = 10 | 1 << 8 | 1 << 24
"""IA32_MCG_CAP as QEMU's processors have it: ten banks (KVM gives 32), MCG_CTL_P and MCG_SER_P (Intel
SDM volume 3, 17.3.1.1)."""
EPILOG = f"""\
exit status: {RESET} the program reset the machine or switched it off, {TIMEOUT} its time was over,
{STUCK} it ended in another way, which standard error says; {WRONG_USE} wrong use
"""


def environment() -> bytes:
    """What programs look up of their host, as kvm-unit-tests' own runner gives it to them."""
    release = platform.release()
    numbers = re.findall(r"\d+", release)[:3]
    names = ("KERNEL_VERSION", "KERNEL_PATCHLEVEL", "KERNEL_SUBLEVEL")
    pairs = [
        ("KERNEL_VERSION_STRING", release),
        *zip(names, numbers, strict=False),
    ]
    return "".join(f"{name}={value}\n" for name, value in pairs).encode()


def run(options: argparse.Namespace) -> Ending:
    """Make the machine, run the program until it ends, and return how."""
    arch: Any = importlib.import_module(f"vmm_arch.{options.hypervisor}_x86_64")
    vendor, features = read_processor(options.cpu)
    with arch.GuestMemory(options.memory << 20) as memory:
        entry = load_multiboot(
            memory,
            options.image,
            cmdline=" ".join([str(options.image), *options.arguments]),
            modules=[BootModule(environment())],
        )
        processor = cpuid(arch.supported_cpuid(), vendor, features)
        with arch.Vm(memory, vcpus=options.cpus, irqchip=True, cpuid=processor) as vm:
            arch.configure_system(vm, entry)
            for vcpu in vm.vcpus:
                arch.configure_vcpu(vcpu, entry)
                if options.hypervisor == "kvm":
                    vcpu.ioctl(KVM_X86_SETUP_MCE, bytearray(MACHINE_CHECKS.to_bytes(8, "little")))
            bus = Bus()
            serial = Serial16550(_write, partial(vm.set_irq_line, SERIAL_LINE))
            bus.attach_ports(range(SERIAL_PORT, SERIAL_PORT + 8), serial)
            bus.attach_ports(range(CMOS_INDEX_PORT, CMOS_DATA_PORT + 1), Cmos())
            attach_test_devices(bus, vm, cpus=options.cpus, ram=options.memory << 20)
            return serve(vm, bus, timeout=options.timeout)


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def status(ending: Ending) -> int:
    """QEMU's exit status for how a program ended, and one of its own where QEMU has none."""
    match ending:
        case Ending(reason=Reason.DEBUG_EXIT, code=int() as code):
            return (code << 1 | 1) & 0xFF
        case Ending(reason=Reason.SHUTDOWN | Reason.RESET | Reason.POWER_OFF):
            return RESET
        case Ending(reason=Reason.TIMEOUT):
            return TIMEOUT
        case _:
            return STUCK


def main() -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="machine.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EPILOG,
    )
    parser.add_argument("--cpus", type=int, default=1, metavar="N", help="how many (%(default)s)")
    parser.add_argument(
        "--memory", type=int, default=128, metavar="MIB", help="how much (%(default)s)"
    )
    parser.add_argument(
        "--cpu",
        default=MODEL,
        metavar="MODEL",
        help="as QEMU's -cpu, but the model is always the host's: max,-x2apic,vendor=GenuineIntel",
    )
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="end the program then")
    parser.add_argument("--hypervisor", choices=["kvm", "whp"], default="kvm")
    parser.add_argument("image", type=Path, help="a program, such as x86/apic.flat")
    parser.add_argument("arguments", nargs="*", help="for the program; put -- before them")
    options = parser.parse_args()
    try:
        ending = run(options)
    except Unsupported as error:
        print(f"machine.py: {error}: this machine does not have that", file=sys.stderr)
        return WRONG_USE
    except (KernelImageError, OSError, ValueError) as error:
        print(f"machine.py: {error}", file=sys.stderr)
        return WRONG_USE
    if ending.reason != Reason.DEBUG_EXIT:
        print(f"machine.py: {ending}", file=sys.stderr)
    return status(ending)


if __name__ == "__main__":
    sys.exit(main())
