"""One snapshot, many hosts: Dask's workers fork machines from it, wherever they are.

    python examples/many_hosts.py                         two processes here; needs /dev/kvm
    python examples/many_hosts.py tcp://scheduler:8786    the workers of a cluster

Needs `pip install distributed` beside vmm-arch, on all of them. A real guest takes seconds until it is
ready; here it says so at once. From that moment there is a snapshot, which is sent to each worker once.
Each task forks a machine from it, gives the guest a number and returns what it finds: how many steps
Collatz's rule takes from there to 1.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Any

from distributed import Client, LocalCluster, WorkerPlugin
from vmm_arch import kvm_x86_64 as arch

GUEST = bytes.fromhex(
    "e6 e9"  # out 0xe9, al: ready
    "66 e5 10"  # in eax, 0x10
    "31 c9"  # xor cx, cx
    "66 83 f8 01"  # step: cmp eax, 1
    "74 12"  # je done
    "41"  # inc cx
    "a8 01"  # test al, 1
    "74 08"  # jz even
    "67 66 8d 44 40 01"  # lea eax, [eax + eax * 2 + 1]
    "eb ed"  # jmp step
    "66 d1 e8"  # even: shr eax, 1
    "eb e8"  # jmp step
    "89 c8"  # done: mov ax, cx
    "e7 11"  # out 0x11, ax
    "f4"  # hlt
)


class Kicks(WorkerPlugin):
    """Dask runs tasks in threads, and only a process's main thread can prepare it for kicks."""

    def setup(self, worker: Any) -> None:
        """Called in the main thread of each worker."""
        arch.install_kick_signal()


def prepare() -> arch.Snapshot:
    """Run the guest until it is ready, and take a snapshot."""
    with arch.GuestMemory(1 << 20) as memory, arch.Vm(memory) as vm:
        memory.write(0x1000, GUEST)
        arch.configure_vcpu(vm.vcpus[0], arch.RealMode(0x1000))
        ready = vm.vcpus[0].run()
        assert isinstance(ready, arch.IoOut)
        return vm.take_snapshot()


def steps(number: int, snapshot: arch.Snapshot) -> int:
    """Ask a machine of its own; in a worker."""
    with snapshot.fork() as vm:
        while True:
            match vm.vcpus[0].run():
                case arch.IoIn(port=0x10) as question:
                    question.complete(number)
                case arch.IoOut(port=0x11) as answer:
                    return answer.value
                case other:
                    raise RuntimeError(f"the guest did not answer: {other}")


def longest(client: Client, snapshot: arch.Snapshot) -> tuple[int, int]:
    """Find the number below 1,000 from which the way is longest, and how long it is."""
    client.register_plugin(Kicks())
    sent = client.scatter(snapshot, broadcast=True)
    numbers = range(1, 1000)
    found = client.gather(client.map(steps, numbers, snapshot=sent, batch_size=50))
    return max(zip(found, numbers, strict=True))


def main(scheduler: str | None = None) -> None:
    """Use a cluster, or make one here."""
    with ExitStack() as stack:
        snapshot = stack.enter_context(prepare())
        if scheduler is None:
            here = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
            scheduler = stack.enter_context(here).scheduler_address
        client = stack.enter_context(Client(scheduler))
        most, number = longest(client, snapshot)
        workers = len(client.scheduler_info(n_workers=-1)["workers"])
        print(f"{number} takes {most} steps; asked 999 machines of {workers} workers")


if __name__ == "__main__":
    main(*sys.argv[1:])
