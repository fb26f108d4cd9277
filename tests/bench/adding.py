"""Measures memory that is made, added to a machine, removed and freed, in turn with the same in C."""

from __future__ import annotations

from time import perf_counter_ns

from figures import alternate, difference, ratio
from rival import Rival
from vmm_arch import kvm_x86_64 as arch

AT = 1 << 33
SIZES = {"2m": (2 << 20, 300), "1t": (1 << 40, 5)}
"""By the names that the C program has: bytes, and how often."""


def adding() -> None:
    with Rival() as rival, arch.GuestMemory(0x10000) as memory, arch.Vm(memory) as vm:
        for name, (size, count) in SIZES.items():

            def ours(size: int = size) -> float:
                start = perf_counter_ns()
                with arch.GuestMemory([arch.Region(AT, size)]) as added:
                    vm.add_memory(added)
                    vm.remove_memory(added)
                return perf_counter_ns() - start

            def theirs(command: str = f"memory_{name}") -> float:
                return float(rival.measure(command, 1)[0])

            times = alternate(count, {"ours": ours, "theirs": theirs})
            what = f"memory of {size >> 20} MiB added and removed, beside C"
            if name == "2m":
                difference(what, times["ours"], times["theirs"], "200")
            else:
                ratio(what, times["ours"], times["theirs"], "1.1")


if __name__ == "__main__":
    adding()
