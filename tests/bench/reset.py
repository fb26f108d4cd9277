"""Measures resets: a machine that has written some pages is made as it was, and run again.

In turn with the same in C, and with what there is for it without ``reset_to``: memory copied by
``dirty_pages()``, and the state restored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median
from time import perf_counter_ns

from figures import ratio
from rival import Rival
from vmm_arch import kvm_x86_64 as arch

CODE, DATA = 0x1000, 0x10_0000
SIZE = 64 << 20
TURNS = 15
CALLS = {1: 200, 44: 100, 1000: 20}
"""How often a machine is reset in each turn, by the pages that it writes."""
FAST = {
    "two calls": ("debug", "extended_control"),
    "no call": ("debug", "extended_control", "msrs", "fpu"),
}
"""What a guest may be known not to change, by what that leaves besides KVM_RUN and the pages."""


def guest(pages: int) -> bytes:
    return bytes.fromhex(
        f"b9{pages.to_bytes(4, 'little').hex()}"  # mov ecx, pages
        f"bf{DATA.to_bytes(4, 'little').hex()}"  # mov edi, DATA
        "ff07"  # page: inc dword ptr [edi]
        "81c700100000"  # add edi, 0x1000
        "e2f6"  # loop page
        "e610"  # out 0x10, al
    )


@contextmanager
def machine(pages: int) -> Iterator[arch.Vm]:
    with arch.GuestMemory(SIZE) as memory:
        memory.write(CODE, guest(pages))
        with arch.Vm(memory, track_dirty=True) as vm:
            arch.configure_vcpu(vm.vcpus[0], arch.Protected32(CODE))
            yield vm


def resets(vm: arch.Vm, reset: Callable[[], object], pages: int) -> list[float]:
    times: list[float] = []
    run = vm.vcpus[0].run
    last = DATA + (pages - 1) * 0x1000
    run()
    for _ in range(CALLS[pages]):
        start = perf_counter_ns()
        reset()
        run()
        times.append(perf_counter_ns() - start)
        assert vm.memory.read(last, 4) == b"\1\0\0\0"
    reset()
    return times


def by_hand(vm: arch.Vm, image: bytes, state: arch.VmState) -> None:
    for page in vm.dirty_pages():
        vm.memory.write(page, image[page : page + 0x1000])
    vm.restore(state)


def resetting() -> None:
    with Rival() as rival:
        for pages in CALLS:
            with machine(pages) as vm, machine(pages) as other:
                snapshot = vm.take_snapshot()
                image, state = other.memory.read(0, SIZE), other.save()
                contestants: dict[str, Callable[[], list[float]]] = {
                    "C": partial(rival.measure, f"reset_{pages}", CALLS[pages]),  # type: ignore[dict-item]
                    "reset": partial(resets, vm, partial(vm.reset_to, snapshot), pages),
                    **{
                        name: partial(
                            resets, vm, partial(vm.reset_to, snapshot, unchanged=groups), pages
                        )
                        for name, groups in FAST.items()
                    },
                    "restore": partial(resets, other, partial(by_hand, other, image, state), pages),
                }
                times: dict[str, list[float]] = {name: [] for name in contestants}
                for turn in range(TURNS + 1):
                    for name, contest in contestants.items():
                        found = contest()
                        if turn:  # the first is slow
                            times[name] += map(float, found)
            what = f"{pages} pages"
            ratio(f"reset, {what} and run, to C", times["reset"], times["C"], "1.25 at most")
            ratio(f"by restore() instead, {what}, to C", times["restore"], times["C"], "-")
            for name in ("C", "reset", *FAST):
                rate = 1e9 / median(times[name])
                print(f"{f'{what}, {name}, times a second':52} {rate:8.0f}")


if __name__ == "__main__":
    resetting()
