"""What records of the raw ABIs are at run time: how they print, and what their bodies mean."""

from __future__ import annotations

import copy
import ctypes
import gc
import pickle
from typing import Any

import pytest
from vmm_arch.abi import kvm_s390x, kvm_x86_64, whp_x86_64
from vmm_arch.abi.records import (
    BigStruct,
    BigUnion,
    LittleStruct,
    of,
    u8,
    u16,
    u32,
    u64,
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
