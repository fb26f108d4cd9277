"""Values with units and histograms, and KVM's file of them."""

from __future__ import annotations

import os
import sys

import pytest
from vmm_arch import kvm_x86_64
from vmm_arch.abi import kvm_x86_64 as abi
from vmm_arch.kvm_statistics import StatisticsFile
from vmm_arch.statistic import Statistic, StatisticKind, StatisticUnit, changed_statistics

LINEAR, LOGARITHMIC = StatisticKind.LINEAR_HISTOGRAM, StatisticKind.LOGARITHMIC_HISTOGRAM
SECONDS = StatisticUnit.SECONDS


@pytest.mark.parametrize(
    ("statistic", "value", "text"),
    [
        (Statistic((1234,)), 1234, "1,234"),
        (Statistic((1500,), unit=SECONDS, exponent=-9), 1.5e-6, "1.5e-06 s"),
        (Statistic((3,), unit=StatisticUnit.BYTES, base=2, exponent=10), 3072, "3,072 bytes"),
        (Statistic((1,), StatisticKind.INSTANT, StatisticUnit.BOOLEAN), 1, "yes"),
        (Statistic((5, 2, 1), LINEAR, bucket_size=4), 8, "8 (half of them below 4)"),
        (Statistic((0, 0, 3), LOGARITHMIC), 3, "3"),  # all of them in the bucket without an end
        (Statistic((0, 0), LOGARITHMIC), 0, "0"),
    ],
)
def test_a_value_in_its_unit(statistic: Statistic, value: float, text: str) -> None:
    assert statistic.value == value
    assert str(statistic) == text


def test_buckets_of_histograms() -> None:
    linear = Statistic((1, 2, 3), LINEAR, SECONDS, 10, -3, 5)
    assert list(linear.buckets()) == [(0, 0.005, 1), (0.005, 0.01, 2), (0.01, None, 3)]
    logarithmic = Statistic((1, 2, 3, 4), LOGARITHMIC)
    assert list(logarithmic.buckets()) == [(0, 1, 1), (1, 2, 2), (2, 4, 3), (4, None, 4)]
    with pytest.raises(ValueError, match=r"a peak statistic has no buckets"):
        list(Statistic((1,), StatisticKind.PEAK).buckets())


def test_what_changed() -> None:
    before = {
        "exits": Statistic((5,)),
        "pages": Statistic((9,), StatisticKind.INSTANT),
        "same": Statistic((1,)),
        "waits": Statistic((1, 0), LOGARITHMIC),
        "wraps": Statistic(((1 << 64) - 1,)),
    }
    after = {
        "exits": Statistic((7,)),
        "pages": Statistic((4,), StatisticKind.INSTANT),
        "same": Statistic((1,)),
        "waits": Statistic((1, 3), LOGARITHMIC),
        "wraps": Statistic((1,)),
        "new": Statistic((2,)),
    }
    assert changed_statistics(before, after) == {
        "exits": Statistic((2,)),
        "pages": Statistic((4,), StatisticKind.INSTANT),
        "waits": Statistic((0, 3), LOGARITHMIC),
        "wraps": Statistic((2,)),
        "new": Statistic((2,)),
    }


def kvm_file(*entries: tuple[str, int, int, int, list[int]], name_size: int = 16) -> int:
    """A file as KVM lays it out, of names, flags, exponents, bucket sizes and values."""
    header = abi.kvm_stats_header(name_size=name_size, num_desc=len(entries), id_offset=24)
    header.desc_offset = 24 + name_size
    block, data = b"", b""
    for name, flags, exponent, bucket_size, values in entries:
        descriptor = abi.kvm_stats_desc(
            flags=flags, exponent=exponent, size=len(values), offset=len(data)
        )
        descriptor.bucket_size = bucket_size
        block += bytes(descriptor) + name.encode().ljust(name_size, b"\0")
        data += b"".join(value.to_bytes(8, "little") for value in values)
    header.data_offset = header.desc_offset + len(block)
    file = os.memfd_create("statistics")
    os.write(file, bytes(header) + b"kvm-1".ljust(name_size, b"\0") + block + data)
    return file


@pytest.mark.skipif(sys.platform != "linux", reason="KVM is part of Linux")
def test_kvms_file_says_what_is_in_it() -> None:
    nanoseconds = abi.KVM_STATS_UNIT_SECONDS
    pages = abi.KVM_STATS_TYPE_INSTANT | abi.KVM_STATS_UNIT_BYTES | abi.KVM_STATS_BASE_POW2
    file = StatisticsFile(
        kvm_file(
            ("exits", 0, 0, 0, [7]),
            ("waits", nanoseconds | abi.KVM_STATS_TYPE_LOG_HIST, -9, 0, [0, 1, 2]),
            ("memory", pages, 12, 0, [3]),
            ("rows", abi.KVM_STATS_TYPE_LINEAR_HIST, 0, 10, [4, 5]),
            ("of_the_future", 0xF | 0xF0, 0, 0, [6]),
        ),
        kvm_x86_64.STATISTICS,
    )
    try:
        assert file.read() == {
            "exits": Statistic((7,)),
            "waits": Statistic((0, 1, 2), LOGARITHMIC, SECONDS, 10, -9),
            "memory": Statistic((3,), StatisticKind.INSTANT, StatisticUnit.BYTES, 2, 12),
            "rows": Statistic((4, 5), LINEAR, bucket_size=10),
            "of_the_future": Statistic((6,), StatisticKind.OTHER, StatisticUnit.OTHER),
        }
    finally:
        file.close()


@pytest.mark.skipif(sys.platform != "linux", reason="KVM is part of Linux")
def test_a_file_that_ends_too_early_is_closed() -> None:
    descriptor = kvm_file(("exits", 0, 0, 0, [7]))
    os.ftruncate(descriptor, 40)
    with pytest.raises(OSError, match=r"KVM's statistics end after 0 of 32 bytes at 0x28"):
        StatisticsFile(descriptor, kvm_x86_64.STATISTICS)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
