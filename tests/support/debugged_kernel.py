"""The kernel of debugged.c, and machines that run it: as a program, with two vCPUs."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("debugged.c")
_COMPILE = (
    "gcc -g -O0 -ffreestanding -fno-stack-protector -fno-pic -no-pie -mno-red-zone"
    " -mgeneral-regs-only -fcf-protection=none -fno-asynchronous-unwind-tables -nostdlib -static"
    " -Wl,--build-id=none"
)


def kernel_at(folder: Path, address: int = 0x20_0000, *options: str) -> Path:
    """Compile the kernel for an address."""
    kernel = folder / "kernel.elf"
    command = [
        *_COMPILE.split(),
        f"-Wl,-Ttext={address:#x}",
        *options,
        "-o",
        str(kernel),
        str(SOURCE),
    ]
    subprocess.run(command, check=True, timeout=60)
    return kernel


@cache
def symbols(kernel: Path) -> dict[str, int]:
    """The addresses of its symbols."""
    listed = subprocess.run(["nm", kernel], capture_output=True, text=True, check=True, timeout=60)
    lines = (line.split() for line in listed.stdout.splitlines())
    return {name: int(address, 16) for address, _, name in lines}


def enter(arch: Any, vm: Any, kernel: Path) -> None:
    """Load it, and have each vCPU enter at its own place."""
    boot = arch.load_kernel(vm.memory, kernel)
    arch.configure_system(vm, boot)
    for vcpu, name in zip(vm.vcpus, ("_start", "_second"), strict=False):
        arch.configure_vcpu(vcpu, arch.Long64(symbols(kernel)[name], rsp=0x8000))


def main(backend: str, kernel: str, vcpus: str) -> None:
    """Say where gdb connects, and at the end why the guest ended."""
    arch: Any = import_module(f"vmm_arch.{backend}")
    with (
        arch.GuestMemory(16 << 20) as memory,
        arch.Vm(memory, vcpus=int(vcpus)) as vm,
    ):
        bus = arch.Bus()
        arch.attach_pc_devices(bus, memory)
        enter(arch, vm, Path(kernel))
        with arch.GdbServer(vm, bus, say=lambda line: print(line, flush=True)) as server:
            print("{}:{}".format(*server.address), flush=True)
            ending = arch.serve(vm, bus, debugger=server, timeout=120)
            server.close(7)
        print(ending.reason, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
