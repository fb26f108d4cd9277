"""A virtio block device: a disk whose content is a file of the host's.

Source: Virtual I/O Device (VIRTIO) version 1.2, section 5.2; a test compares the numbers with
``linux/virtio_blk.h``.
"""

from __future__ import annotations

import io
import os
from struct import Struct
from typing import ClassVar, Final, Self

from vmm_arch.devices.virtio.device import VirtioDevice
from vmm_arch.devices.virtio.queue import Chain, VirtqueueError

SECTOR: Final = 512
READ_ONLY_FEATURE: Final = 1 << 5
FLUSH_FEATURE: Final = 1 << 9
READ_REQUEST, WRITE_REQUEST, FLUSH_REQUEST, ID_REQUEST = 0, 1, 4, 8
STATUS_OK, STATUS_IO_ERROR, STATUS_UNSUPPORTED = 0, 1, 2

_HEADER: Final = Struct("<IIQ")
"""The request, a field that is reserved, and the sector."""
_ID_SIZE: Final = 20
_PIECE: Final = 1 << 20
"""How many bytes are copied at once."""


class VirtioBlock(VirtioDevice):
    """A disk with a file's content, in sectors of 512 bytes; what is beyond the last one is left out.

    Linux calls it ``vda``. ``serial`` is its name, of at most 20 characters, which Linux has in
    ``/sys/block/vda/serial``. What the guest writes goes to the file at once. Saving a machine does
    not save the file: keep it, or give the guest a ``read_only`` one.

    An error of the file is an I/O error to the guest, and ``error`` is the last one. Raises OSError
    if the file cannot be opened, ValueError for a longer ``serial`` or an empty file.
    """

    DEVICE_TYPE: ClassVar[int] = 2
    QUEUES: ClassVar[tuple[int, ...]] = (256,)

    def __init__(
        self, path: str | os.PathLike[str], *, read_only: bool = False, serial: str = ""
    ) -> None:
        self._serial = serial.encode()
        if len(self._serial) > _ID_SIZE:
            raise ValueError(f"serial: {serial!r} has more than {_ID_SIZE} bytes")
        self._file = io.FileIO(os.fspath(path), "rb" if read_only else "r+b")
        self.capacity = self._file.seek(0, os.SEEK_END) // SECTOR
        """In sectors."""
        self.FEATURES = READ_ONLY_FEATURE if read_only else FLUSH_FEATURE
        self.error: OSError | ValueError | None = None
        if not self.capacity:
            self._file.close()
            raise ValueError(f"{path}: it has no whole sector of {SECTOR} bytes")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file: every request from then on is an I/O error."""
        self._file.close()

    def config(self) -> bytes:
        """The capacity, and no other field: all belong to features that are not offered."""
        return self.capacity.to_bytes(8, "little").ljust(0x3C, b"\0")

    def handle(self, queue: int, chain: Chain) -> None:
        """Serve a request: a header, data, and a byte for the status."""
        header = chain.read(_HEADER.size)
        if len(header) < _HEADER.size or not chain.writable:
            raise VirtqueueError("a request without header or without room for its status")
        kind, _, sector = _HEADER.unpack(header)
        try:
            status = self._serve(kind, sector * SECTOR, chain)
        except (OSError, ValueError) as error:  # ValueError: the file is closed
            self.error = error
            status = STATUS_IO_ERROR
        while chain.writable > 1:  # the status is the last byte, also after half of the data
            chain.write(bytes(min(chain.writable - 1, _PIECE)))
        chain.write(bytes([status]))

    def _serve(self, kind: int, position: int, chain: Chain) -> int:
        if kind == READ_REQUEST:
            return self._read(position, chain)
        if kind == WRITE_REQUEST:
            return self._write(position, chain)
        if kind == FLUSH_REQUEST:
            os.fsync(self._file.fileno())
            return STATUS_OK
        if kind == ID_REQUEST:
            chain.write(self._serial.ljust(_ID_SIZE, b"\0")[: chain.writable - 1])
            return STATUS_OK
        return STATUS_UNSUPPORTED

    def _fits(self, position: int, size: int) -> bool:
        return not size % SECTOR and position + size <= self.capacity * SECTOR

    def _read(self, position: int, chain: Chain) -> int:
        size = chain.writable - 1
        if not self._fits(position, size):
            return STATUS_IO_ERROR
        self._file.seek(position)
        while size:
            data = self._file.read(min(size, _PIECE))
            if not data:
                raise OSError("the file has become shorter")
            chain.write(data)
            size -= len(data)
        return STATUS_OK

    def _write(self, position: int, chain: Chain) -> int:
        if self.FEATURES & READ_ONLY_FEATURE or not self._fits(position, chain.readable):
            return STATUS_IO_ERROR
        self._file.seek(position)
        while data := chain.read(_PIECE):
            left = memoryview(data)
            while left:
                left = left[self._file.write(left) :]
        return STATUS_OK
