"""Dirty pages on KVM: from its rings, which may be full, and from its bitmaps on kernels without."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from backends import backend_module
from vmm_arch import kvm_x86_64 as arch
from vmm_arch.abi import kvm_x86_64 as abi
from vmm_arch.kvm_dirty_ring import ENTRIES

CODE, FIRST = 0x1000, 0x10_0000
PAGES = 2 * ENTRIES + 100
"""So many that the ring is full more than once, and goes round."""
SIZE = FIRST + PAGES * 0x1000


def writes_pages(count: int) -> bytes:
    """A guest in 32-bit mode that writes to `count` pages from FIRST on, tells so, and does it again."""
    return bytes.fromhex(
        f"b9{count.to_bytes(4, 'little').hex()}"  # again: mov ecx, count
        f"bf{FIRST.to_bytes(4, 'little').hex()}"  # mov edi, FIRST
        "ff07"  # page: inc dword ptr [edi]
        "81c700100000"  # add edi, 0x1000
        "e2f6"  # loop page
        "e610"  # out 0x10, al
        "ebe8"  # jmp again
    )


@pytest.fixture(name="arch", autouse=True)
def only_kvm() -> Any:
    """Skip the tests, or fail them in CI, where there is no KVM."""
    return backend_module("kvm_x86_64")


@pytest.fixture
def memory() -> Iterator[arch.GuestMemory]:
    with arch.GuestMemory(SIZE) as memory:
        yield memory


def run(vcpu: arch.Vcpu) -> None:
    exit = vcpu.run()
    assert isinstance(exit, arch.IoOut), exit


@pytest.mark.parametrize("ring", [True, False], ids=["rings", "bitmaps"])
@pytest.mark.parametrize("count", [1, 2, 3, 44, ENTRIES - 1, ENTRIES, ENTRIES + 1, PAGES])
def test_every_page_is_reported_once(
    memory: arch.GuestMemory, monkeypatch: pytest.MonkeyPatch, count: int, ring: bool
) -> None:
    if not ring:
        monkeypatch.setattr(arch, "DIRTY_RING_SIZE", 1 << 30)  # more than any kernel has
    memory.write(CODE, writes_pages(count))
    written = [FIRST + page * 0x1000 for page in range(count)]
    with arch.Vm(memory, track_dirty=True) as vm:
        assert vm._dirty_ring == ring, "this kernel has no dirty rings"
        arch.configure_vcpu(vm.vcpus[0], arch.Protected32(CODE))
        everything = [*range(0, SIZE, 0x1000)]
        for _ in range(4):
            run(vm.vcpus[0])
            found = vm.dirty_pages()
            if ring and count > ENTRIES // 2 and len(found) > count + 1:
                assert found == everything  # overrun
            else:
                assert [page for page in found if page >= FIRST] == written
        assert vm.dirty_pages() == []


def test_a_full_ring_is_no_exit(memory: arch.GuestMemory) -> None:
    """However often it is full before anybody asks."""
    memory.write(CODE, writes_pages(PAGES))
    with arch.Vm(memory, track_dirty=True) as vm:
        arch.configure_vcpu(vm.vcpus[0], arch.Protected32(CODE))
        for count in range(1, 4):
            run(vm.vcpus[0])
            assert memory.read(SIZE - 0x1000, 1) == bytes([count])
        found = vm.dirty_pages()
        assert found == sorted(set(found))
        assert set(found) >= {FIRST + page * 0x1000 for page in range(PAGES)}


def test_the_rings_of_all_vcpus_are_read(memory: arch.GuestMemory) -> None:
    memory.write(CODE, writes_pages(3))
    with arch.Vm(memory, vcpus=2, track_dirty=True) as vm:
        for vcpu in vm.vcpus:
            arch.configure_vcpu(vcpu, arch.Protected32(CODE))
            run(vcpu)
        vm.dirty_pages()
        run(vm.vcpus[1])
        run(vm.vcpus[0])
        assert vm.dirty_pages() == [FIRST, FIRST + 0x1000, FIRST + 0x2000]


def test_a_closed_machine_leaves_no_ring_mapped(memory: arch.GuestMemory) -> None:
    """A ring that is mapped would keep the machine alive in the kernel."""
    with arch.Vm(memory, track_dirty=True) as vm:
        vcpu = vm.vcpus[0]
        with open("/proc/self/maps") as maps:
            assert sum("kvm-vcpu" in line for line in maps) == 2
    with open("/proc/self/maps") as maps:
        assert not any("kvm-vcpu" in line for line in maps), vcpu


class TestResets:
    """Beside KVM_RUN, and the call that resets the rings, a reset makes few calls."""

    @pytest.mark.parametrize(
        ("unchanged", "calls"),
        [
            ((), ["KVM_SET_XSAVE", "KVM_SET_XCRS", "KVM_SET_DEBUGREGS", "KVM_GET_MSRS"]),
            (("debug", "extended_control"), ["KVM_SET_XSAVE", "KVM_GET_MSRS"]),
            (("debug", "extended_control", "msrs", "fpu"), []),
        ],
    )
    def test_the_calls_of_a_reset(
        self,
        memory: arch.GuestMemory,
        monkeypatch: pytest.MonkeyPatch,
        unchanged: tuple[str, ...],
        calls: list[str],
    ) -> None:
        memory.write(CODE, writes_pages(44) + b"\xf4")
        with arch.Vm(memory, track_dirty=True) as vm:
            arch.configure_vcpu(vm.vcpus[0], arch.Protected32(CODE))
            with vm.take_snapshot() as snapshot:
                vm.reset_to(snapshot, unchanged=unchanged)  # lays out what the others write
                for _ in range(3):
                    run(vm.vcpus[0])
                    with monkeypatch.context() as patch:
                        made = calls_of(patch)
                        vm.reset_to(snapshot, unchanged=unchanged)
                    assert made == ["KVM_RESET_DIRTY_RINGS", *calls]


def calls_of(patch: pytest.MonkeyPatch) -> list[str]:
    """The names of the calls that are made, but for KVM_RUN's."""
    names = {
        value: name
        for name, value in vars(abi).items()
        if name.startswith(("KVM_GET_", "KVM_SET_"))
    }
    made: list[str] = []
    for way in ("ioctl", "ioctl_large"):
        real = getattr(arch, way)

        def recorded(fd: int, request: int, *argument: Any, real: Any = real) -> int:
            made.append(names.get(request, "KVM_RESET_DIRTY_RINGS"))
            result: int = real(fd, request, *argument)
            return result

        patch.setattr(arch, way, recorded)
    return made
