"""The raw ABI in use: a real-mode guest on the real /dev/kvm, with nothing but the standard library.

The guest adds the byte that it reads from port 0x10 to AL, writes the sum to port 0x11, and halts.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from collections.abc import Iterator

import pytest
from requirements import require
from vmm_arch.abi import kvm_x86_64 as kvm

GUEST = bytes.fromhex(
    "b0 28"  # mov al, 0x28
    "88 c3"  # mov bl, al
    "e4 10"  # in al, 0x10
    "00 d8"  # add al, bl
    "e6 11"  # out 0x11, al
    "f4"  # hlt
)
ENTRY = 0x1000


@pytest.fixture
def device() -> Iterator[int]:
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")
    fd = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    yield fd
    os.close(fd)


def test_a_real_mode_guest_runs_and_its_io_exits_are_read(device: int) -> None:
    assert fcntl.ioctl(device, kvm.KVM_GET_API_VERSION) == kvm.KVM_API_VERSION
    vm = fcntl.ioctl(device, kvm.KVM_CREATE_VM)
    memory = mmap.mmap(-1, 0x2000)
    memory[ENTRY : ENTRY + len(GUEST)] = GUEST
    region = kvm.kvm_userspace_memory_region(
        memory_size=len(memory), userspace_addr=ctypes.addressof(ctypes.c_char.from_buffer(memory))
    )
    fcntl.ioctl(vm, kvm.KVM_SET_USER_MEMORY_REGION, region)
    vcpu = fcntl.ioctl(vm, kvm.KVM_CREATE_VCPU)
    run_page = mmap.mmap(vcpu, fcntl.ioctl(device, kvm.KVM_GET_VCPU_MMAP_SIZE))
    run = kvm.kvm_run.from_buffer(run_page)

    sregs = kvm.kvm_sregs()
    fcntl.ioctl(vcpu, kvm.KVM_GET_SREGS, sregs)
    sregs.cs.base = sregs.cs.selector = 0
    fcntl.ioctl(vcpu, kvm.KVM_SET_SREGS, sregs)
    fcntl.ioctl(vcpu, kvm.KVM_SET_REGS, kvm.kvm_regs(rip=ENTRY, rflags=2))

    written = []
    while True:
        fcntl.ioctl(vcpu, kvm.KVM_RUN)
        if run.exit_reason != kvm.KVM_EXIT_IO:
            break
        assert (run.io.size, run.io.count) == (1, 1)
        if run.io.direction == kvm.KVM_EXIT_IO_IN:
            run_page[run.io.data_offset] = run.io.port + 1
        else:
            written.append((run.io.port, run_page[run.io.data_offset]))
    assert run.exit_reason == kvm.KVM_EXIT_HLT
    assert written == [(0x11, 0x28 + 0x11)]

    regs = kvm.kvm_regs()
    fcntl.ioctl(vcpu, kvm.KVM_GET_REGS, regs)
    assert (regs.rip, regs.rax & 0xFF, regs.rbx & 0xFF) == (ENTRY + len(GUEST), 0x39, 0x28)
    os.close(vcpu)
    os.close(vm)
