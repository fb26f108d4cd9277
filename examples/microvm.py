"""A sandbox in a micro-VM: Linux from a disk image, its console, and a snapshot that work starts from.

    python examples/microvm.py vmlinuz initrd.img root.img 'uname -r' 'ls /etc'

Boots the kernel once, with the image as its read-only root, and logs in at the console. Each command
then runs in a machine of its own, which goes on from that point: nothing of one is there in the next.
"""

from __future__ import annotations

import sys
from functools import partial

from vmm_arch import kvm_x86_64 as arch  # or whp_x86_64

REGISTERS, LINE = range(0xD0000000, 0xD0001000), 5
PROMPT, TIMEOUT = b"$ ", 600.0


class Guest:
    """A machine with its devices, and somebody who reads and types at its console."""

    def __init__(self, vm: arch.Vm, disk: arch.VirtioBlock) -> None:
        self.vm = vm
        self.bus = arch.Bus()
        self.said = bytearray()
        self.console = arch.Serial16550(
            self.read, partial(vm.set_irq_line, 4), wait_for_listener=True
        )
        self.bus.attach_ports(range(0x3F8, 0x400), self.console)
        arch.attach_pc_devices(self.bus, vm.memory)
        root = arch.VirtioMmio(vm.memory, disk, partial(vm.set_irq_line, LINE))
        self.bus.attach_memory(REGISTERS, root)

    def read(self, text: bytes) -> None:
        self.said += text
        if self.said.endswith(PROMPT):
            self.bus.pause(
                self.bus.stop
            )  # with all vCPUs at rest, so that the machine can be saved

    def until_prompt(self) -> str:
        """Run until the shell asks for a command, and return what was printed before."""
        ending = arch.serve(self.vm, self.bus, timeout=TIMEOUT)
        if ending.reason is not arch.Reason.STOPPED:
            raise RuntimeError(f"no prompt: {ending}\n{self.said.decode(errors='replace')}")
        text = self.said.removesuffix(PROMPT).decode(errors="replace").replace("\r", "")
        self.said.clear()
        return text


def boot(kernel: str, initrd: str, disk: arch.VirtioBlock) -> arch.Snapshot:
    """Boot until the first prompt, and take a snapshot."""
    with arch.GuestMemory(128 << 20) as memory, arch.Vm(memory, irqchip=True) as vm:
        line = arch.linux_cmdline(vm, "quiet root=/dev/vda ro")
        entry = arch.load_kernel(memory, kernel, initrd=initrd, cmdline=line)
        arch.configure_system(vm, entry, devices=[arch.MmioDevice(REGISTERS, LINE)])
        arch.configure_vcpu(vm.vcpus[0], entry)
        guest = Guest(vm, disk)
        guest.until_prompt()
        return vm.take_snapshot(devices=guest.bus.save())


def run(snapshot: arch.Snapshot, disk: arch.VirtioBlock, command: str) -> str:
    """Run a command in a machine that goes on from the snapshot, and return what it printed."""
    with snapshot.fork() as vm:
        guest = Guest(vm, disk)
        guest.bus.restore(snapshot.devices)
        guest.console.receive(command.encode() + b"\n")
        return guest.until_prompt().removeprefix(f"{command}\n")


def main(kernel: str, initrd: str, image: str, *commands: str) -> None:
    with arch.VirtioBlock(image, read_only=True) as disk, boot(kernel, initrd, disk) as snapshot:
        for command in commands:
            print(f"{PROMPT.decode()}{command}\n{run(snapshot, disk, command)}", end="", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
