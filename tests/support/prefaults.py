"""Has a machine's memory mapped before its guest uses it: for the nested machines."""

from __future__ import annotations

from vmm_arch import kvm_x86_64 as arch

SIZE = 16 << 20


def main() -> None:
    with arch.GuestMemory(SIZE) as memory, arch.Vm(memory) as vm:
        vm.prefault(0, SIZE)
        counted = vm.statistics()
        mapped = counted["pages_4k"].value + 512 * counted["pages_2m"].value
        print(f"{mapped:.0f} pages of {SIZE >> 12}")


if __name__ == "__main__":
    main()
