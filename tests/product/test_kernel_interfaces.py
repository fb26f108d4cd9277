"""The raw ABIs of kernel interfaces, in use on this kernel: pages made lazily, a tap device."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from lazy_memory import (
    PAGE,
    LazyMemory,
    device_abi,
    faults_of_the_kernel,
    faults_of_the_process,
)
from requirements import require


@pytest.fixture(scope="module")
def abi() -> Any:
    return device_abi()


@pytest.mark.parametrize("faults", [faults_of_the_kernel, faults_of_the_process])
def test_pages_are_made_when_they_are_read(faults: Any) -> None:
    """Each fault is answered by another thread, with that page's contents."""
    opened: AbstractContextManager[int] = faults()
    with (
        opened as descriptor,
        mmap.mmap(-1, 8 * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held,
    ):
        first = ctypes.c_char.from_buffer(held)
        memory = LazyMemory(descriptor, ctypes.addressof(first), pages=8)
        saved = {page: bytes([page]) * PAGE for page in (6, 1, 3)}
        server = threading.Thread(target=memory.serve, args=(saved,))
        server.start()
        for page in (5, 6, 1, 6, 3):
            assert memory.read(page) == saved.get(page, bytes(PAGE))
        server.join()
        assert memory.faults == [5, 6, 1, 3]
        memory.unregister()
        assert memory.read(0) == bytes(PAGE)
        del first


@pytest.fixture
def tap() -> Iterator[int]:
    """A descriptor of /dev/net/tun, not yet of an interface."""
    path = "/dev/net/tun"
    require(os.access(path, os.R_OK | os.W_OK), f"no access to {path}")
    require(os.geteuid() == 0, "not root: a network interface cannot be made")
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    yield descriptor
    os.close(descriptor)


def test_a_frame_goes_through_a_tap_device(abi: Any, tap: int) -> None:
    """From the host's network to the descriptor, behind the header that a virtio-net device has."""
    assert bytes_of(abi.TUNGETFEATURES, tap) & abi.IFF_VNET_HDR
    request = abi.ifreq()
    request.ifr_ifrn.ifrn_name = b"vmmarch%d"
    request.ifr_ifru.ifru_flags = abi.IFF_TAP | abi.IFF_NO_PI | abi.IFF_VNET_HDR
    fcntl.ioctl(tap, abi.TUNSETIFF, request)
    name = request.ifr_ifrn.ifrn_name.rstrip(b"\0").decode()
    assert name in dict.fromkeys(name for _, name in socket.if_nameindex())
    stated = abi.ifreq()
    fcntl.ioctl(tap, abi.TUNGETIFF, stated)
    assert stated.ifr_ifrn.ifrn_name == request.ifr_ifrn.ifrn_name
    wanted = abi.IFF_TAP | abi.IFF_NO_PI | abi.IFF_VNET_HDR
    assert stated.ifr_ifru.ifru_flags & wanted == wanted

    size = ctypes.sizeof(abi.virtio_net_hdr_v1)
    fcntl.ioctl(tap, abi.TUNSETVNETHDRSZ, ctypes.c_int(size))
    assert bytes_of(abi.TUNGETVNETHDRSZ, tap) == size
    fcntl.ioctl(tap, abi.TUNSETOFFLOAD, abi.TUN_F_CSUM)
    with pytest.raises(OSError, match="Invalid argument"):
        fcntl.ioctl(tap, abi.TUNSETOFFLOAD, 1 << 30)

    frame = b"\xff" * 6 + b"\x02\0\0\0\0\1" + b"\x88\xb5" + b"a frame".ljust(46, b".")
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as host:
        request.ifr_ifru.ifru_flags = abi.IFF_UP
        fcntl.ioctl(host, abi.SIOCSIFFLAGS, request)
        host.bind((name, 0x88B5))
        host.send(frame)
        while not (held := os.read(tap, 2048)).endswith(frame):
            assert len(held) > size  # the kernel's own, as of IPv6
        header = abi.virtio_net_hdr_v1.from_buffer_copy(held)
        assert (header.gso_type, len(held)) == (abi.VIRTIO_NET_HDR_GSO_NONE, size + len(frame))
        os.write(tap, bytes(abi.virtio_net_hdr_v1()) + frame[6:12] + frame[:6] + frame[12:])
        host.settimeout(30)
        assert host.recv(2048)[12:] == frame[12:]


def bytes_of(request: int, descriptor: int) -> int:
    """The number that an ioctl gives."""
    number = ctypes.c_uint()
    fcntl.ioctl(descriptor, request, number)
    return number.value
