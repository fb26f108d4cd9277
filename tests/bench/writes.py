"""A guest that writes a port: collected by the kernel, and with an exit each."""

from __future__ import annotations

import statistics
from functools import partial
from time import perf_counter

from figures import alternate
from vmm_arch import kvm_x86_64 as arch

PORT = 0x10
WRITES = 100_000
WRITES_AND_HALTS = (
    b"\x66\xb9" + WRITES.to_bytes(4, "little") + b"\xe6\x10\x66\x49\x75\xfa\xf4"
)  # mov ecx, …; next: out 0x10, al; dec ecx; jnz next; hlt


class Count:
    """A device that counts what is written."""

    DEFERRABLE = (0,)

    def __init__(self) -> None:
        self.writes = 0

    def read(self, offset: int, size: int) -> int:
        return -1

    def write(self, offset: int, size: int, value: int) -> None:
        self.writes += 1


def per_second(collected: bool) -> float:
    """How many writes a second reach a device of the bus."""
    bus, device = arch.Bus(), Count()
    bus.attach_ports(range(PORT, PORT + 1), device)
    with arch.GuestMemory(1 << 16) as memory, arch.Vm(memory) as vm:
        memory.write(0x1000, WRITES_AND_HALTS)
        vcpu = vm.vcpus[0]
        arch.configure_vcpu(vcpu, arch.RealMode(0x1000))
        if collected and not bus.coalesce(vm):
            raise RuntimeError("this kernel collects no writes")
        start = perf_counter()
        while bus.handle(vcpu.run()):
            pass
        taken = perf_counter() - start
    assert device.writes == WRITES
    return WRITES / taken


def writing() -> None:
    contestants = {"collected": partial(per_second, True), "exits": partial(per_second, False)}
    rates = alternate(10, contestants)
    collected, exits = (statistics.median(rates[how]) for how in ("collected", "exits"))
    what = "writes of a port that reach their device, collected"
    print(f"{what:52} {collected / 1e3:8.0f}          k/s promised: -")
    print(f"{'  with an exit each':52} {exits / 1e3:8.0f}          k/s promised: -")
    print(f"{'  ratio':52} {collected / exits:8.2f}          x   promised: 2 at least")


if __name__ == "__main__":
    writing()
