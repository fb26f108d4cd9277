"""Members of records that are properties: arrays of chars, and bit-fields that ctypes cannot place."""

from __future__ import annotations

import copy
import ctypes
from ctypes import Array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vmm_arch.abi import kvm_x86_64
from vmm_arch.abi.records import (
    BigStruct,
    BigUnion,
    LittleStruct,
    LittleUnion,
    Rows,
    bits_at,
    char,
    of,
    signed_bits_at,
    u8,
    u16,
    u32,
    u64,
    unnamed,
)


class device(LittleStruct):
    name: bytes = char * 8
    rows: Rows[bytes] = (char * 4) * 2
    deep: Rows[Rows[bytes]] = ((char * 2) * 3) * 2


class either(LittleUnion):
    data: bytes = char * 6
    number: int = u32


class holding(LittleStruct):
    before: int = u16
    _union = unnamed(either)
    data: bytes
    number: int
    many: Array[device] = of(device * 2)


class swapped(BigStruct):
    name: bytes = char * 8
    rows: Rows[bytes] = (char * 4) * 2
    deep: Rows[Rows[bytes]] = ((char * 2) * 3) * 2


@pytest.mark.parametrize("kind", [device, swapped])
def test_an_array_of_chars_is_all_of_its_bytes(kind: Any) -> None:
    record = kind.from_buffer_copy(bytes(range(ctypes.sizeof(kind))))
    assert record.name == bytes(range(8))  # though it begins with a zero
    assert list(record.rows) == [bytes(range(8, 12)), bytes(range(12, 16))]
    assert record.rows[-1] == record.rows[1]
    assert record.rows[:1] == [bytes(range(8, 12))]
    assert record.deep[1][0] == bytes([22, 23])
    record.name = b"tap0"
    record.rows[1] = memoryview(b"ab")
    record.deep[1][0] = b""
    expected = [*b"tap0\0\0\0\0", *range(8, 12), *b"ab\0\0", *range(16, 22), 0, 0, *range(24, 28)]
    assert bytes(record) == bytes(expected)
    record.name = record.name
    assert bytes(record) == bytes(expected)
    assert kind(name=b"eth0").name == kind(b"eth0").name == b"eth0\0\0\0\0"
    assert (kind.name.offset, kind.name.size) == (0, 8)  # as of every member


def test_an_array_of_chars_is_bytes_inside_others_too() -> None:
    record = holding(data=b"abcdef")
    assert record.data == b"abcdef"
    record.number = 0
    assert record.data == b"\0\0\0\0ef"
    assert either.from_buffer(record, 4).data == record.data  # the union's own
    assert vars(holding)["_union"].offset == 4
    record.many[1].name = b"one"
    assert record.many[1].name == b"one\0\0\0\0\0"
    assert bytes(record)[12 + 28 :].startswith(b"one")


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (b"nine bytes", ValueError, "device.name: 10 bytes, but there is room for 8; shorten them"),
        ("tap0", TypeError, "device.name: expected bytes, got str"),
        (8, TypeError, "device.name: expected bytes, got int"),
    ],
)
def test_what_does_not_fit_into_chars_is_refused(value: Any, error: Any, message: str) -> None:
    record: Any = device(name=b"before")
    with pytest.raises(error, match=message):
        record.name = value
    with pytest.raises(error, match=r"^row 1: "):
        record.rows[1] = value
    with pytest.raises(TypeError, match="one by one"):
        record.rows[:] = [b"", b""]
    assert record.name == b"before\0\0"


def test_a_page_of_kvm_is_its_bytes() -> None:
    page = kvm_x86_64.kvm_lapic_state(regs=bytes(range(256)) * 4)
    assert page.regs == bytes(range(256)) * 4
    assert bytes(page) == page.regs
    run = kvm_x86_64.kvm_run.from_buffer_copy(bytes(32) + bytes(range(256)) + bytes(2064))
    assert run.padding == bytes(range(256))
    assert len(run.s.padding) == 2048


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"", "<8 bytes: 0>"),
        (b"tap0", "b'tap0'"),
        (b"tap\0x", "<8 bytes: 74 61 70 00 78 0...>"),
        (bytes(range(1, 9)), "<8 bytes: 01 02 03 04 05 06 07 08>"),
    ],
)
def test_chars_print_as_text_if_they_are_a_text(name: bytes, shown: str) -> None:
    assert f"device(name={shown}, rows=[<4 bytes: 0> x 2]," in repr(device(name=name))


def test_of_many_bytes_the_first_are_printed() -> None:
    assert repr(kvm_x86_64.kvm_lapic_state(b"\1" * 1024)).count("01") == 256


@given(data=st.data(), size=st.integers(0, 70), inside=st.integers(0, 2))
def test_any_bytes_in_an_array_of_any_size(data: st.DataObject, size: int, inside: int) -> None:
    """In either byte order, in a record, in a union, and through one without a name."""
    struct: Any
    union: Any
    struct, union = data.draw(st.sampled_from([(LittleStruct, LittleUnion), (BigStruct, BigUnion)]))
    before = data.draw(st.binary(min_size=3, max_size=3))
    body: dict[str, Any] = {"lead": u8 * 3, "text": char * size, "after": u8}
    kind: Any = type(struct)("text_record", (struct,), body)
    if inside:
        kind = type(union)("around", (union,), {"_inner": unnamed(kind), "wide": u8})
    if inside == 2:
        kind = type(struct)("outer", (struct,), {"_union": unnamed(kind)})
    old = data.draw(st.binary(min_size=size, max_size=size))
    record = kind.from_buffer_copy(before + old + b"\xa5")
    assert record.text == old
    new = data.draw(st.binary(max_size=size))
    record.text = data.draw(st.sampled_from([bytes, bytearray, memoryview]))(new)
    assert record.text == new.ljust(size, b"\0")
    too_much = data.draw(st.binary(min_size=size + 1, max_size=size + 9))
    with pytest.raises(ValueError, match=f"there is room for {size}; shorten them"):
        record.text = too_much
    assert bytes(record) == before + new.ljust(size, b"\0") + b"\xa5"


class odd(LittleStruct):
    _bytes_0 = u8 * 4
    vector: int = bits_at(0, 8)
    type: int = bits_at(8, 3)
    error: int = bits_at(11, 1)
    delta: int = signed_bits_at(12, 19)  # across the bytes that ctypes would use
    valid: int = bits_at(31, 1)
    after: int = u16


class odd_union(LittleUnion):
    number: int = u64
    _odd = unnamed(odd)
    vector: int
    type: int
    error: int
    delta: int
    valid: int
    after: int


class with_odd(LittleStruct):
    before: int = u32
    _union = unnamed(odd_union)
    number: int
    vector: int
    type: int
    error: int
    delta: int
    valid: int
    after: int


class big_odd(BigStruct):
    _bytes_0 = u8 * 3
    high: int = bits_at(0, 11)
    low: int = signed_bits_at(11, 13)


def test_bit_fields_that_ctypes_cannot_place_are_properties() -> None:
    record: Any = odd(vector=0x20, type=3, valid=1, after=0x1234)
    record.delta = -2
    assert bytes(record) == bytes([0x20, 0xE3, 0xFF, 0xFF, 0x34, 0x12])
    assert (record.type, record.error, record.delta, record.valid) == (3, 0, -2, 1)
    assert repr(record) == "odd(vector=0x20, type=3, error=0, delta=-2, valid=1, after=0x1234)"
    assert {"vector", "delta", "after"} <= set(dir(record))
    with pytest.raises(AttributeError):
        record.nothing = 1
    record.type = 0x7FF  # as all of ctypes' integers, it keeps the bits that there is room for
    assert bytes(record)[1] == 0xE7
    with pytest.raises(TypeError, match="int expected instead of str instance"):
        record.type = "7"
    place = vars(odd)["delta"]
    assert (place.offset, place.start, place.width) == (1, 12, 19)


def test_such_bit_fields_are_members_of_what_has_them_without_a_name() -> None:
    record = with_odd(before=7, delta=-1)
    record.vector = 0x80
    assert (record.vector, record.delta, record.number) == (0x80, -1, 0x7FFFF080)
    assert vars(with_odd)["delta"].start == with_odd._union.offset * 8 + 12
    assert copy.copy(record).delta == -1


def test_such_bit_fields_may_be_in_the_other_byte_order() -> None:
    record = big_odd(high=0x401, low=-2)
    assert bytes(record) == bytes([0x80, 0x3F, 0xFE])
    assert (record.high, record.low) == (0x401, -2)


class longer(device):
    more: bytes = char * 4
    last: int = u8


def test_a_record_may_begin_with_another_ones_members() -> None:
    record = longer(name=b"tap0", more=b"x", last=3)
    assert ctypes.sizeof(longer) == ctypes.sizeof(device) + 5
    assert repr(record).startswith("longer(name=b'tap0', rows=[<4 bytes: 0> x 2], deep=")
    assert repr(record).endswith(", more=b'x', last=3)")
    assert bytes(record)[-5:] == b"x\0\0\0\3"
