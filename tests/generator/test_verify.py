"""The compiler contradicts every kind of wrong fact, and the error names both values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vmm_arch_gen.abi.layout import Layouts
from vmm_arch_gen.abi.model import Abi, Member
from vmm_arch_gen.abi.types import Array, Function, Named, Pointer, Scalar
from vmm_arch_gen.abi.writer import write_abi
from vmm_arch_gen.diagnostics import InputError
from vmm_arch_gen.extract.verify import verify
from vmm_arch_gen.targets import TargetTable

import headers

HEADER = """
typedef unsigned int __u32;
typedef signed char tiny;
typedef _Bool flag;
typedef int (*callback)(void *, int);
enum colour { RED = 1, DEEP_RED = -2 };
struct inner { __u32 a; };
struct other { __u32 a; };
struct point {
    __u32 x;
    __u32 y;
    __u32 on : 1, speed : 7;
    int signed_one;
    void *pointer;
    struct inner inner;
    struct { __u32 in; } unnamed;
    __u32 many[3];
    enum colour colour;
};
#define LIMIT 12
#define NEGATIVE (-1)
#define _IO(type, nr) (((type) << 8) | (nr))
#define START _IO(0xAE, 1)
int move(struct point *point, __u32 by);
"""

Corrupt = Callable[[Abi], Abi]


def member(name: str, **change: Any) -> Corrupt:
    """Change one member of ``struct point``."""

    def corrupt(abi: Abi) -> Abi:
        record = abi.records["struct point"]
        members = tuple(
            dataclasses.replace(m, **change) if m.name == name else m for m in record.members
        )
        return with_record(abi, members)

    return corrupt


def with_record(abi: Abi, members: tuple[Member, ...], **change: Any) -> Abi:
    """Change a record's members; its layout follows."""
    record = dataclasses.replace(abi.records["struct point"], members=members, **change)
    records = {**abi.records, "struct point": record}
    computed = Layouts(abi.model, records, abi.typedefs, abi.enums)
    layouts = {key: computed.record(key) for key in records}
    return dataclasses.replace(abi, records=records, layouts=layouts)


def layout(**change: Any) -> Corrupt:
    """Change what is stated of a record, and leave its members."""

    def corrupt(abi: Abi) -> Abi:
        wrong = dataclasses.replace(abi.layouts["struct point"], **change)
        return dataclasses.replace(abi, layouts={**abi.layouts, "struct point": wrong})

    return corrupt


def moved(place: int, bits: int) -> Corrupt:
    def corrupt(abi: Abi) -> Abi:
        offsets = list(abi.layouts["struct point"].offsets)
        offsets[place] += bits
        return layout(offsets=tuple(offsets))(abi)

    return corrupt


def swapped(abi: Abi) -> Abi:
    x, y, *rest = abi.records["struct point"].members
    return with_record(abi, (y, x, *rest))


def bit_fields_swapped(abi: Abi) -> Abi:
    x, y, on, speed, *rest = abi.records["struct point"].members
    return with_record(abi, (x, y, speed, on, *rest))


def constant(name: str, value: int) -> Corrupt:
    def corrupt(abi: Abi) -> Abi:
        constants = tuple(
            dataclasses.replace(c, value=value) if c.name == name else c for c in abi.constants
        )
        return dataclasses.replace(abi, constants=constants)

    return corrupt


def enumerator(abi: Abi) -> Abi:
    colour = abi.enums["enum colour"]
    wrong = dataclasses.replace(colour, enumerators=(("RED", 3), colour.enumerators[1]))
    return dataclasses.replace(abi, enums={"enum colour": wrong})


def enum_type(abi: Abi) -> Abi:
    wrong = dataclasses.replace(abi.enums["enum colour"], underlying=Scalar("unsigned int"))
    return dataclasses.replace(abi, enums={"enum colour": wrong})


def ioctl(abi: Abi) -> Abi:
    (start,) = abi.ioctls
    return dataclasses.replace(abi, ioctls=(dataclasses.replace(start, value=0xAE02),))


def typedef(name: str, kind: str) -> Corrupt:
    def corrupt(abi: Abi) -> Abi:
        wrong = dataclasses.replace(abi.typedefs[name], type=Scalar(kind))
        return dataclasses.replace(abi, typedefs={**abi.typedefs, name: wrong})

    return corrupt


def function(abi: Abi) -> Abi:
    (move,) = abi.functions
    assert isinstance(move.type, Function)
    wrong = dataclasses.replace(move.type, result=Pointer(Scalar("void")))
    return dataclasses.replace(abi, functions=(dataclasses.replace(move, type=wrong),))


def model(**change: Any) -> Corrupt:
    return lambda abi: dataclasses.replace(
        abi,
        model=dataclasses.replace(abi.model, **change),
    )


@pytest.mark.parametrize(
    ("corrupt", "message"),
    [
        (layout(size=60), "size of struct point is 60 as read from the header, but 48 for the compiler"),
        (layout(align=4), "alignment of struct point is 4 as read from the header, but 8 for the compiler"),
        (moved(1, 8), "offset of struct point.y is 5 as read from the header, but 4 for the compiler"),
        (moved(2, 1), "bits of struct point.on is 65 to 65 as read from the header, but 64 to 64 for the compiler"),
        (member("many", type=Scalar("int")), "size of struct point.many is 4 as read from the header, but 12 for"),
        (member("many", type=Array(Scalar("int"), 3)), "type of struct point.many is int as read from the header, but unsigned int for"),
        (member("x", type=Scalar("unsigned char")), "size of struct point.x is 1 as read from the header, but 4 for"),
        (member("x", aligned=64), "alignment of struct point is 64 as read from the header, but 8 for"),
        (member("y", aligned=16), "offset of struct point.y is 16 as read from the header, but 4 for"),
        (swapped, "offset of struct point.x is 4 as read from the header, but 0 for"),
        (bit_fields_swapped, "bits of struct point.on is 71 to 71 as read from the header, but 64 to 64 for"),
        (member("speed", bits=6), "bits of struct point.speed is 65 to 70 as read from the header, but 65 to 71"),
        (member("signed_one", type=Scalar("unsigned int")), "type of struct point.signed_one is unsigned int as read from the header, but int for"),
        (member("pointer", type=Scalar("long")), "type of struct point.pointer is long as read from the header, but another type for"),
        (member("inner", type=Scalar("int")), "type of struct point.inner is int as read from the header, but another type for"),
        (constant("LIMIT", 13), "value of LIMIT is 13 as read from the header, but 12 for"),
        (constant("NEGATIVE", (1 << 64) - 1), "sign of NEGATIVE is plus as read from the header, but minus for"),
        (enumerator, "value of RED is 3 as read from the header, but 1 for"),
        (enum_type, "type of enum colour is unsigned int as read from the header, but int for"),
        (ioctl, "value of START is 0xae02 as read from the header, but 0xae01 for"),
        (typedef("__u32", "unsigned short"), "size of __u32 is 2 as read from the header, but 4 for"),
        (typedef("tiny", "unsigned char"), "type of tiny is unsigned char as read from the header, but signed char for"),
        (member("y", type=Scalar("float")), "type of struct point.y is float as read from the header, but unsigned int for"),
        (member("pointer", type=Pointer(Scalar("int"))), "type int* of struct point.pointer is that as read from the header, but something else for"),
        (member("inner", type=Named("struct other")), "type struct other of struct point.inner is that as read"),
        (typedef("flag", "unsigned char"), "type of flag is unsigned char as read from the header, but _Bool for"),
        (typedef("callback", "long"), "type of callback is long as read from the header, but another type for"),
        (function, "type void*(struct point* point, __u32 by) of move is that as read from the header, but something else for"),
        (model(long=4), "size of long is 4 as read from the header, but 8 for"),
        (model(pointer=4), "size of void * is 4 as read from the header, but 8 for"),
        (model(signed_char=False), "signedness of char is unsigned as read from the header, but signed for"),
        (model(byte_order="big"), "byte order of the target is big as read from the header, but little for"),
    ],
)  # fmt: skip
def test_a_wrong_fact_is_refused(
    corrupt: Corrupt, message: str, small: Abi, table: TargetTable, tmp_path: Path
) -> None:
    target = table.targets["kvm_x86_64"]
    (tmp_path / "test.h").write_text(HEADER)
    toolchain = headers.toolchain(target, table, tmp_path)
    assert verify(small, headers.small_target(target), toolchain) is small
    with pytest.raises(InputError) as caught:
        verify(corrupt(small), headers.small_target(target), toolchain)
    assert message in str(caught.value)


@pytest.fixture(scope="module")
def small(table: TargetTable, tmp_path_factory: pytest.TempPathFactory) -> Abi:
    folder = tmp_path_factory.mktemp("small")
    return headers.read(HEADER, table.targets["kvm_x86_64"], table, folder)


def test_a_false_static_assertion_of_the_header_is_refused(
    table: TargetTable, tmp_path: Path
) -> None:
    text = 'struct s { int a; };\n_Static_assert(sizeof(struct s) == 8, "a size");\n'
    with pytest.raises(InputError, match=r"test.h:2: .*assertion"):
        headers.read(text, table.targets["kvm_x86_64"], table, tmp_path)


def test_a_static_assertion_that_only_the_compiler_sees_false_is_refused(
    small: Abi, table: TargetTable, tmp_path: Path
) -> None:
    target = table.targets["kvm_x86_64"]
    text = f'{HEADER}\n_Static_assert(__builtin_constant_p(1) == 2, "never");\n'
    (tmp_path / "test.h").write_text(text)
    with pytest.raises(InputError, match=r"test.h:\d+: the compiler says: .*never"):
        verify(small, headers.small_target(target), headers.toolchain(target, table, tmp_path))


def test_a_member_that_the_compiler_does_not_know_is_named(
    small: Abi, table: TargetTable, tmp_path: Path
) -> None:
    (tmp_path / "test.h").write_text(HEADER.replace("__u32 y;", "__u32 why;"))
    target = table.targets["kvm_x86_64"]
    with pytest.raises(
        InputError, match=r"test.h: the offset of struct point.y: the compiler says"
    ):
        verify(small, headers.small_target(target), headers.toolchain(target, table, tmp_path))


def test_a_compiler_for_another_cpu_is_refused(table: TargetTable, tmp_path: Path) -> None:
    (tmp_path / "test.h").write_text("typedef int number;\n")
    target = headers.small_target(table.targets["kvm_x86_64"])
    target = dataclasses.replace(target, cpu_macro="__aarch64__")
    abi = headers.read("typedef int number;\n", target, table, tmp_path)
    with pytest.raises(
        InputError, match=r"^proof:\d+: .*this compiler does not compile for kvm_x86_64"
    ):
        verify(abi, target, headers.toolchain(target, table, tmp_path))


def test_members_and_macros_of_one_name(table: TargetTable, tmp_path: Path) -> None:
    """As in glibc's signal.h, where si_pid is a member of a union, and a macro that leads there."""
    text = (
        "union fields { struct { int x; } y; };\n"
        "struct pair { union fields fields; int x; unsigned wide : 3, b : 29; };\n"
        "#define x fields.y.x\n#define b 7\n#define wide (b + 1)\n#define M(n) ((n) + b)\n"
    )
    abi = headers.prove(text, table.targets["kvm_x86_64"], table, tmp_path)
    facts = write_abi(abi).splitlines()
    assert {"constant b = 7 in test.h", "constant wide = 8 in test.h"} <= set(facts)
    assert "  @ 4 x int" in facts
    assert "  @ 8.3:29 b unsigned int" in facts
    assert any(line.startswith("omitted macro x in test.h: ") for line in facts)


def test_an_enumerator_and_a_macro_of_one_name(table: TargetTable, tmp_path: Path) -> None:
    """As in glibc's math.h: the macro is for #ifdef, and has the enumerator's value."""
    text = "enum {\n#define NAN 4\nFP_NAN = NAN,\n#define FP_NAN 4\n};\n"
    abi = headers.prove(text, table.targets["kvm_x86_64"], table, tmp_path)
    assert "  FP_NAN = 4\n" in write_abi(abi)
    assert not [constant for constant in abi.constants if constant.name == "FP_NAN"]
