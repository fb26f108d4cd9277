"""Measures the arch functions of kvm_x86_64, in turn with the same work in C and with the twin.

The twin has what a layer without generation has: an abstract class, neutral records, conversions.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fcntl import ioctl
from statistics import mean
from time import perf_counter_ns
from typing import Any

import twin
from figures import difference, ratio
from rival import Rival
from vmm_arch import kvm_x86_64 as arch
from vmm_arch.abi import kvm_x86_64 as abi

MACHINES = 12
CALLS = 300
SWITCH_INTERVAL = 1e-5
"""What the documentation recommends to who has threads that compute, in seconds."""
OUT_FOREVER = b"\xe6\x10\xeb\xfc"  # 1: out 0x10, al; jmp 1b
ENTRY = arch.Long64(0x1000, rsp=0x8000, rsi=0x7000)

# A machine sets CPUID when it is made; these are what it does that with.
CPUID_IMAGE: Any = vars(arch)["_cpuid_image"]
SET_LARGE: Any = vars(arch)["_call_large"]

Times = dict[str, list[float]]


def timed(work: Callable[[], object], count: int) -> list[float]:
    times: list[float] = []
    for _ in range(count):
        start = perf_counter_ns()
        work()
        times.append(perf_counter_ns() - start)
    return times


def configuring(memory: arch.GuestMemory, with_cpuid: bool) -> list[float]:
    """Prepare one new vCPU; the machine is made and destroyed while nobody looks."""
    with arch.Vm(memory, irqchip=True) as vm:
        arch.configure_system(vm, ENTRY)
        vcpu = vm.vcpus[0]
        if with_cpuid:
            cpuid = CPUID_IMAGE(vm.cpuid)

            def work() -> None:
                SET_LARGE(vcpu.fd, abi.KVM_SET_CPUID2, cpuid)
                arch.configure_vcpu(vcpu, ENTRY)

            return timed(work, 1)
        return timed(lambda: arch.configure_vcpu(vcpu, ENTRY), 1)


def twin_configuring() -> list[float]:
    with twin.open_vm(1 << 20, irqchip=True) as vm:
        entry = twin.Long64(0x1000)
        return timed(lambda: twin.configure_vcpu(vm.vcpu, entry), 1)


@contextmanager
def computing(switch_interval: float) -> Iterator[None]:
    """Another thread of this process computes all the while."""
    stop = False
    before = sys.getswitchinterval()

    def compute() -> None:
        while not stop:
            sum(range(1000))

    thread = threading.Thread(target=compute)
    thread.start()
    sys.setswitchinterval(switch_interval)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
        stop = True
        thread.join()


def exits(vcpu: arch.Vcpu, count: int) -> list[float]:
    """Time exits one by one, each told apart and looked into."""
    times: list[float] = []
    for _ in range(count):
        start = perf_counter_ns()
        match vcpu.run():
            case arch.IoOut(port=0x10, data=data):
                times.append(perf_counter_ns() - start)
                assert len(data) == 1
    return times


def twin_exits(vcpu: twin.Vcpu, count: int) -> list[float]:
    times: list[float] = []
    for _ in range(count):
        start = perf_counter_ns()
        match vcpu.run():
            case twin.IoOut(port=0x10, data=data):
                times.append(perf_counter_ns() - start)
                assert len(data) == 1
    return times


def arch_functions() -> None:
    with (
        Rival() as rival,
        arch.GuestMemory(1 << 16) as memory,
        arch.Vm(memory) as vm,
        twin.open_vm(1 << 16) as twin_vm,
    ):
        memory.write(0x1000, OUT_FOREVER)
        twin_vm.memory[0x1000:0x1004] = OUT_FOREVER
        vcpu = vm.vcpus[0]
        arch.configure_vcpu(vcpu, arch.RealMode(0x1000))
        sregs = twin_vm.vcpu.get_sregs()
        sregs.cs.base = sregs.cs.selector = 0
        twin_vm.vcpu.set_sregs(sregs)
        twin_vm.vcpu.set_regs(twin.Regs(rip=0x1000))
        regs = vcpu.get_regs()
        fd = vcpu.fd
        twin_regs = twin_vm.vcpu.get_regs()

        def in_c(command: str, count: int) -> list[float]:
            return [float(time) for time in rival.measure(command, count)]

        contestants: dict[str, Callable[[], list[float]]] = {
            "configure": lambda: configuring(memory, False),
            "configure+cpuid": lambda: configuring(memory, True),
            "configure, twin": twin_configuring,
            "firecracker": lambda: in_c("configure_firecracker_after_cpuid", 1),
            "firecracker+cpuid": lambda: in_c("configure_firecracker", 1),
            "ours in C": lambda: in_c("configure_ours_after_cpuid", 1),
            "ours in C+cpuid": lambda: in_c("configure_ours", 1),
        }
        times: Times = {name: [] for name in contestants}
        for _ in range(MACHINES * 5):
            for name, contest in contestants.items():
                times[name] += contest()
        loops: dict[str, Callable[[], list[float]]] = {
            "set_regs": lambda: timed(lambda: vcpu.set_regs(regs), CALLS),
            "set_regs, bare": lambda: timed(lambda: ioctl(fd, abi.KVM_SET_REGS, regs), CALLS),
            "set_regs, C": lambda: in_c("set_regs", CALLS),
            "set_regs, twin": lambda: timed(lambda: twin_vm.vcpu.set_regs(twin_regs), CALLS),
            "exit": lambda: exits(vcpu, CALLS),
            "exit, bare": lambda: timed(lambda: ioctl(fd, abi.KVM_RUN), CALLS),
            "exit, C": lambda: in_c("io_exit", CALLS),
            "exit, twin": lambda: twin_exits(twin_vm.vcpu, CALLS),
        }
        for name, loop in loops.items():
            times[name] = []
            loop()  # the first exits of a machine are slow
        for _ in range(MACHINES):
            for name, loop in loops.items():
                times[name] += loop()
        with arch.GuestMemory(1 << 16) as other, arch.Vm(other, irqchip=True) as whole:
            saved = whole.vcpus[0]
            for _ in range(MACHINES):
                saves = {
                    "save": lambda: timed(saved.save, CALLS // 3),
                    "save, C": lambda: in_c("save", CALLS // 3),
                }
                for name, loop in saves.items():
                    times.setdefault(name, []).extend(loop())
        names = ("busy exit", "busy exit, twin", "busy exit, default interval", "busy exit, C")
        times |= {name: [] for name in names}
        for _ in range(MACHINES):
            with computing(SWITCH_INTERVAL):
                times["busy exit"] += exits(vcpu, CALLS)
                times["busy exit, twin"] += twin_exits(twin_vm.vcpu, CALLS)
            times["busy exit, C"] += in_c("io_exit_busy", CALLS)
        with computing(sys.getswitchinterval()):
            times["busy exit, default interval"] += exits(vcpu, CALLS)

    def against(ours: str, theirs: str, promise: str = "-") -> None:
        ratio(f"{ours}, to {theirs}", times[ours], times[theirs], promise)

    against("configure", "firecracker", "0.85 at most (median)")
    against("configure", "ours in C", "1.10 at most (minimum)")
    against("configure+cpuid", "firecracker+cpuid")
    against("configure+cpuid", "ours in C+cpuid")
    against("configure, twin", "firecracker")
    against("configure, twin", "configure")
    difference("set_regs, over C", times["set_regs"], times["set_regs, C"], "0.55 at most")
    difference("set_regs, over fcntl.ioctl", times["set_regs"], times["set_regs, bare"], "-")
    difference("set_regs by the twin, over C", times["set_regs, twin"], times["set_regs, C"], "-")
    difference("an exit, over C", times["exit"], times["exit, C"], "1.8 at most")
    difference("an exit, over fcntl.ioctl", times["exit"], times["exit, bare"], "-")
    difference("an exit by the twin, over C", times["exit, twin"], times["exit, C"], "-")
    ratio("the whole state read, to C", times["save"], times["save, C"], "1.15 at most")
    what = "an exit while another thread computes, over C"
    difference(what, times["busy exit"], times["busy exit, C"], "1.8 at most")
    for name in names:
        print(f"{name + ', mean':52} {mean(times[name]) / 1e3:8.2f}          us")


if __name__ == "__main__":
    arch_functions()
