"""Nothing that is written in Linux' UAPI headers stops the extractor."""

from __future__ import annotations

import pytest
import uapi

ODD = [
    *("asm-generic/siginfo.h", "asm/swab.h", "linux/btrfs_tree.h", "linux/cciss_defs.h", "linux/cxl_mem.h"),
    *("linux/dma-buf.h", "linux/byteorder/big_endian.h", "linux/perf_event.h", "linux/virtio_net.h"),
]  # fmt: skip
"""Headers with inline assembly, statement expressions, packing, variables, odd attributes."""


@pytest.mark.parametrize("header", [*ODD, *uapi.all_headers()[::40]])
def test_a_header_is_refused_only_for_what_it_does_not_include(header: str) -> None:
    assert [p for p in uapi.refused(header) if not uapi.is_its_own_fault(p)] == []
