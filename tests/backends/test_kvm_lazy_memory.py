"""A guest whose memory is restored while it runs: each page when the guest first uses it."""

from __future__ import annotations

import threading

from lazy_memory import PAGE, LazyMemory, faults_of_the_kernel
from vmm_arch import kvm_x86_64 as arch

GUEST = bytes.fromhex(
    "a0 10 50"  # mov al, [0x5010]
    "e6 e9"  # out 0xe9, al
    "a0 20 30"  # mov al, [0x3020]
    "e6 e9"  # out 0xe9, al
    "a2 30 50"  # mov [0x5030], al
    "f4"  # hlt
)


def test_a_guest_gets_its_pages_when_it_uses_them() -> None:
    saved = {
        1: GUEST.ljust(PAGE, b"\xf4"),
        5: b"\0" * 0x10 + b"A" + bytes(PAGE - 0x11),
        3: b"\0" * 0x20 + b"B" + bytes(PAGE - 0x21),
    }
    with faults_of_the_kernel() as descriptor, arch.GuestMemory(16 * PAGE) as memory:
        lazy = LazyMemory(descriptor, memory.host_address(memory.regions[0]), pages=16)
        server = threading.Thread(target=lazy.serve, args=(saved,))
        server.start()
        with arch.Vm(memory) as vm:
            vcpu = vm.vcpus[0]
            arch.configure_vcpu(vcpu, arch.RealMode(PAGE))
            said = b""
            while not isinstance(event := vcpu.run(), arch.Halt):
                assert isinstance(event, arch.IoOut)
                said += event.data
        server.join()
        assert said == b"AB"
        assert lazy.faults == [1, 5, 3]
        assert memory.read(5 * PAGE + 0x30, 1) == b"B"
        lazy.unregister()
