"""Measures what a machine of a snapshot costs, beside a bare one: made, run to its first exit, closed."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from time import perf_counter

from figures import alternate, ratio, report
from vmm_arch import kvm_x86_64 as arch

MEMORY = 16 << 20
RUNS = 200
OUT_FOREVER = b"\xe6\x10\xeb\xfc"  # 1: out 0x10, al; jmp 1b
ENTRY = arch.RealMode(0x1000)


def bare(*, irqchip: bool) -> float:
    start = perf_counter()
    with arch.GuestMemory(MEMORY) as memory:
        memory.write(0x1000, OUT_FOREVER)
        with arch.Vm(memory, irqchip=irqchip) as vm:
            arch.configure_vcpu(vm.vcpus[0], ENTRY)
            assert isinstance(vm.vcpus[0].run(), arch.IoOut)
    return perf_counter() - start


def forked(snapshot: arch.Snapshot) -> float:
    start = perf_counter()
    with snapshot.fork() as vm:
        assert isinstance(vm.vcpus[0].run(), arch.IoOut)
    return perf_counter() - start


def of_pool(pool: arch.MachinePool) -> float:
    start = perf_counter()
    with pool.machine() as vm:
        assert isinstance(vm.vcpus[0].run(), arch.IoOut)
    return perf_counter() - start


def forks() -> None:
    for irqchip in (False, True):
        with arch.GuestMemory(MEMORY) as memory, arch.Vm(memory, irqchip=irqchip) as vm:
            memory.write(0x1000, OUT_FOREVER)
            arch.configure_vcpu(vm.vcpus[0], ENTRY)
            vm.vcpus[0].run()
            snapshot = vm.take_snapshot()
        with ExitStack() as stack:
            stack.enter_context(snapshot)
            pool = stack.enter_context(arch.MachinePool(snapshot, 1))
            forked(snapshot)
            contestants = {
                "bare": partial(bare, irqchip=irqchip),
                "fork": partial(forked, snapshot),
                "pool": partial(of_pool, pool),
            }
            times = alternate(RUNS, contestants)
        name = "with an irqchip" if irqchip else "without"
        report(f"a bare machine {name}", times["bare"], "-", 1e-3, "ms")
        ratio(f"  the n-th fork of a snapshot, {name}", times["fork"], times["bare"], "1.1 at most")
        ratio(f"  a pool's machine, reset, {name}", times["pool"], times["bare"], "-")


if __name__ == "__main__":
    forks()
