"""What records of the raw ABIs are at run time: how they print, and what their bodies mean."""

from __future__ import annotations

import copy
import ctypes
import gc
import pickle
from ctypes import Array
from typing import Any

import pytest
from vmm_arch.abi import kvm_s390x, kvm_x86_64, whp_x86_64
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
from vmm_arch_gen.abi.reader import read_abi_file
from vmm_arch_gen.diagnostics import InputError
from vmm_arch_gen.generate.values import load_values
from vmm_arch_gen.project import Project


def made(kind: Any, **values: Any) -> Any:
    """A record with members set, also those inside others: ``io__port``."""
    record = kind()
    for path, value in values.items():
        *outer, name = path.split("__")
        inner = record
        for step in outer:
            inner = getattr(inner, step)
        setattr(inner, name, value)
    return record


@pytest.mark.parametrize(
    ("record", "printed"),
    [
        (
            kvm_x86_64.kvm_dtable(base=0x1000, limit=0x7F),
            "kvm_dtable(base=0x1000, limit=0x7f, padding=[0 x 3])",
        ),
        (
            kvm_x86_64.kvm_create_device(type=4, fd=3),
            "kvm_create_device(type=KVM_DEV_TYPE_VFIO, fd=3, flags=0)",
        ),
        (kvm_x86_64.kvm_mp_state(77), "kvm_mp_state(mp_state=0x4d)"),
        (
            kvm_x86_64.kvm_irqfd(gsi=5, flags=0x13),
            "kvm_irqfd(fd=0, gsi=5, flags=KVM_IRQFD_FLAG_DEASSIGN|KVM_IRQFD_FLAG_RESAMPLE|0x10,"
            " resamplefd=0, pad=<16 bytes: 0>)",
        ),
        (
            whp_x86_64.WHV_X64_VP_EXECUTION_STATE(AsUINT16=3),
            "WHV_X64_VP_EXECUTION_STATE(Cpl=3, Cr0Pe=0, Cr0Am=0, EferLma=0, DebugActive=0,"
            " InterruptionPending=0, Reserved0=0, InterruptShadow=0, Reserved1=0)",
        ),
        (kvm_s390x.kvm_s390_psw(mask=2), "kvm_s390_psw(mask=2, addr=0)"),
    ],
)
def test_a_record_prints_itself(record: Any, printed: str) -> None:
    assert repr(record) == printed


def test_an_exit_prints_its_reason_and_its_bytes() -> None:
    run = made(kvm_x86_64.kvm_run, exit_reason=2, io__port=0x3F8)
    assert "exit_reason=KVM_EXIT_IO, " in repr(run)
    assert "<256 bytes: 00 00 f8 03 0...>" in repr(run)
    assert "ExitReason=WHvRunVpExitReasonX64Halt" in repr(
        made(whp_x86_64.WHV_RUN_VP_EXIT_CONTEXT, ExitReason=8)
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


class __hidden(LittleStruct):
    x: int = u16


def test_names_in_a_class_body_mean_what_they_do_in_c() -> None:
    class outer(LittleStruct):
        u16: int = u8
        after: int = of("u16")  # the type, not the member above
        rows: Any = of("u16", 2, 3)
        __hidden: Any = of("__hidden")

    described = [(field[0], ctypes.sizeof(field[1])) for field in outer._fields_]
    assert described == [("u16", 1), ("after", 2), ("rows", 12), ("__hidden", 2)]
    assert len(outer().rows) == 2
    with pytest.raises(AttributeError):
        outer().nothing = 1


def test_names_of_two_underscores_stay_as_they_are() -> None:
    """In a record whose own name has some, too: FreeBSD's ``_cpuset`` has ``__bits``."""

    class _set(LittleStruct):
        __bits: int = u16

    class __sets(LittleStruct):
        __bits: int = u16
        after: Any = of("__hidden")

    assert [field[0] for field in _set._fields_] == ["__bits"]
    assert [field[0] for field in __sets._fields_] == ["__bits", "after"]


def test_a_member_may_be_called_as_python_calls_its_own() -> None:
    """FreeBSD has a ``__spare__``; ``__doc__`` and the like are in every class body."""

    class spared(LittleStruct):
        """A record."""

        __spare__: int = u32
        __rows__: Any = u8 * 4
        __kind__: Any = of("__hidden")

    assert ctypes.sizeof(spared) == 12
    assert [field[0] for field in spared._fields_] == ["__spare__", "__rows__", "__kind__"]
    assert spared.__doc__ == "A record."
    assert spared(5).__spare__ == 5


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


def test_a_union_may_be_in_a_record_of_the_other_byte_order() -> None:
    class both(BigUnion):
        number: int = u32
        bytes: Any = u8 * 4

    class outer(BigStruct):
        inner: both = of(both)

    assert bytes(made(outer, inner__number=1)) == b"\0\0\0\1"


def test_every_entry_of_the_table_of_values_is_used(paths: Project) -> None:
    """A member that is misspelt, or constants that are, would only be missing."""
    values = load_values(paths.values_file)
    used: set[str] = set()
    for path in sorted(paths.abi.glob("*.abi")):
        abi = read_abi_file(path)
        for record in abi.records.values():
            for member in record.members:
                key = f"{record.key.rpartition(' ')[2]}.{member.name}"
                if key in values.table and values.of(abi, record, member.name):
                    used.add(key)
    assert used == set(values.table)


def test_the_wrong_table_of_values_is_refused(tmp_path: Any) -> None:
    (tmp_path / "values.toml").write_text("[none_of]")
    with pytest.raises(InputError, match="has an unknown table: none_of; its tables are one_of"):
        load_values(tmp_path / "values.toml")


class wide(LittleStruct):
    _align_ = 32
    low: int = u64
    high: int = u64


class holder(LittleStruct):
    before: Any = u8 * 32
    held: wide = of(wide)


class packed_holder(LittleStruct):
    _pack_ = 1
    before: int = u8
    held: wide = of(wide)


def is_aligned(*records: Any) -> bool:
    return not any(ctypes.addressof(record) % 32 for record in records)


def test_a_record_lies_at_multiples_of_its_alignment() -> None:
    records = [wide(low=n) for n in range(50)]
    assert is_aligned(*records)
    assert [record.low for record in records] == list(range(50))
    assert is_aligned(*((wide * n)() for n in range(1, 50)))
    assert is_aligned(*(wide.from_buffer_copy(records[n]) for n in range(50)))
    assert wide * 3 is wide * 3
    assert 3 * wide is wide * 3
    three = (wide * 3)(*records[1:4])
    assert [record.low for record in three] == [1, 2, 3]


def test_a_record_is_as_aligned_as_its_members_unless_it_is_packed() -> None:
    assert is_aligned(*(holder().held for _ in range(50)), *((holder * 2)() for _ in range(50)))
    assert "_aligned_" not in vars(packed_holder)
    assert packed_holder.held.offset == 1


@pytest.mark.parametrize("kind", [kvm_x86_64.kvm_dtable, wide, holder, kvm_s390x.kvm_s390_psw])
def test_records_are_copied_and_pickled(kind: Any) -> None:
    record = kind.from_buffer_copy(bytes(range(ctypes.sizeof(kind))))
    for other in (copy.copy(record), copy.deepcopy(record), pickle.loads(pickle.dumps(record))):
        assert bytes(other) == bytes(record)
        assert type(other) is kind
        assert ctypes.addressof(other) != ctypes.addressof(record)


@pytest.mark.parametrize("kind", [wide, wide * 1, holder])
def test_a_view_of_memory_that_lies_elsewhere_is_refused(kind: Any) -> None:
    room = (ctypes.c_uint8 * 256)()
    at = ctypes.addressof(room)
    good = -at % 32
    assert ctypes.addressof(kind.from_buffer(room, good)) == at + good
    assert ctypes.addressof(kind.from_address(at + good)) == at + good
    name = kind.__name__
    expected = (
        rf"{name} needs an address that is a multiple of 32; this one is 8 bytes beyond: allocate"
    )
    with pytest.raises(ValueError, match=expected):
        kind.from_buffer(room, good + 8)
    with pytest.raises(ValueError, match=expected):
        kind.from_address(at + good + 8)
    with pytest.raises(ValueError, match="too small"):
        kind.from_buffer_copy(b"1")


def test_a_record_keeps_what_it_lies_in() -> None:
    records = [wide(low=n, high=~n) for n in range(1000)]
    gc.collect()
    assert all(record.low == n for n, record in enumerate(records))


class longer(device):
    more: bytes = char * 4
    last: int = u8


def test_a_record_may_begin_with_another_ones_members() -> None:
    record = longer(name=b"tap0", more=b"x", last=3)
    assert ctypes.sizeof(longer) == ctypes.sizeof(device) + 5
    assert repr(record).startswith("longer(name=b'tap0', rows=[<4 bytes: 0> x 2], deep=")
    assert repr(record).endswith(", more=b'x', last=3)")
    assert bytes(record)[-5:] == b"x\0\0\0\3"
