"""The self-test's guest that is saved under load, saved as often as it says: for the nested machines.

``python3 saves_under_load.py ROUNDS`` says what the guest has counted in the end.
"""

from __future__ import annotations

import sys
import time
from typing import cast

from vmm_arch import kvm_x86_64 as arch
from vmm_arch.selftest.play import Suite
from vmm_arch.selftest.x86_64.harness import AnyVm
from vmm_arch.selftest.x86_64.scenarios import save_under_load


def main(rounds: int) -> None:
    entry = save_under_load.MACHINE.entry
    memory = arch.GuestMemory(save_under_load.MACHINE.memory)
    memory.write(entry.address, Suite("x86_64").code["save_under_load"])
    vm = arch.Vm(memory, vcpus=2, irqchip=True)
    arch.configure_system(vm, entry)
    for vcpu in vm.vcpus:
        arch.configure_vcpu(vcpu, entry)
    start = time.monotonic()
    counts = save_under_load.save_again_and_again(cast(AnyVm, vm), rounds)
    print(f"{rounds} rounds in {time.monotonic() - start:.1f} s: {counts}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
