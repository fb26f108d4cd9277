"""Macros evaluate to what the compiler says, for expressions nobody has thought of."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from vmm_arch_gen.abi.writer import write_abi
from vmm_arch_gen.diagnostics import InputError
from vmm_arch_gen.targets import Target, TargetTable

import headers

PROLOGUE = """
struct pair { unsigned long long a; unsigned char b; };
enum { NEGATIVE = -3, LARGE = 0x90000000 };
enum { SMALL = 2, BIG = 0xA0000000 };
enum { LESS = -5, MORE = 5 };
typedef unsigned char byte;
"""
LEAVES = [
    "0", "1", "7", "010", "0x7fffffff", "0x80000000", "2147483648", "4294967295", "1U", "3UL", "1ULL",
    "0xffffffffffffffff", "5L", "'a'", "'\\''", "'\\n'", "'\\\\'", "'\\0'", "'\\377'", "'\\x41'", "NEGATIVE", "LARGE", "SMALL", "BIG", "LESS", "MORE", "sizeof(struct pair)",
    "sizeof(int)", "sizeof(long)", "((byte)300)", "((int)0x80000001)", "((unsigned long)-1)", "(-1)",
]  # fmt: skip
BINARY = ["+", "-", "*", "&", "|", "^", "<", "<=", ">", ">=", "==", "!=", "&&", "||", "/", "%"]


def combined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(st.sampled_from(["-", "~", "!", "+"]), inner).map(lambda t: f"({t[0]}{t[1]})"),
        st.tuples(inner, st.sampled_from(BINARY), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(inner, st.sampled_from(["<<", ">>"]), st.integers(0, 31)).map(
            lambda t: f"({t[0]} {t[1]} {t[2]})"
        ),
        st.tuples(inner, inner, inner).map(lambda t: f"({t[0]} ? {t[1]} : {t[2]})"),
    )


EXPRESSIONS = st.recursive(st.sampled_from(LEAVES), combined, max_leaves=6)


@settings(
    max_examples=6,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(expressions=st.lists(EXPRESSIONS, min_size=40, max_size=60))
def test_random_expressions(
    expressions: list[str], compiler_target: Target, table: TargetTable
) -> None:
    """Those without a value in C are omitted: compilers differ about them."""
    macros = "".join(f"#define M{number} {text}\n" for number, text in enumerate(expressions))
    with tempfile.TemporaryDirectory() as folder:
        abi = headers.prove(PROLOGUE + macros, compiler_target, table, Path(folder))
    for omission in abi.omissions:
        assert omission.reason in ("it divides by zero", "it overflows"), omission
    assert len(abi.constants) + len(abi.omissions) == len(expressions)


@pytest.mark.parametrize(
    ("body", "fact"),
    [
        ("sizeof(unsigned)", "constant M = 4 in test.h"),
        ("sizeof(struct pair[3])", "constant M = 48 in test.h"),
        ("sizeof(LESS)", "constant M = 4 in test.h"),
        ("sizeof(void *)", "constant M = 8 in test.h"),
        ("_IOW('x', 1, unsigned)", "ioctl M = 0x40047801 write unsigned int in test.h"),
        ("_IOW('x', 1, long unsigned int)", "ioctl M = 0x40087801 write unsigned long in test.h"),
        ("_IOW('x', 1, char[8])", "ioctl M = 0x40087801 write char[8] in test.h"),
        ("_IOW('x', 1, int) | _IOW('x', 2, long)", "constant M = 0x400c7803 in test.h"),
        ("sizeof(opaque)", "omitted macro M in test.h: struct opaque is not defined"),
        ("_IOW(';', 1, int)", "ioctl M = 0x40043b01 write int in test.h"),
        ("_IOW('{', 1, char[2])", "ioctl M = 0x40027b01 write char[2] in test.h"),
        ("_IOW(',', 1, int)", "ioctl M = 0x40042c01 write int in test.h"),
        ("_IOW(')', 1, int)", "ioctl M = 0x40042901 write int in test.h"),
        ("(_IOW('\\'', 1, int))", "ioctl M = 0x40042701 write int in test.h"),
        ("_IOW(TYPE, 1, int)", "ioctl M = 0x40043b01 write int in test.h"),
        ("VENDOR(3, struct pair)", "ioctl M = 0x40103b03 write struct pair in test.h"),
        ("_IOW('x', 1, THE_PAIR)", "ioctl M = 0x40107801 write struct pair in test.h"),
        ("_IOW('x', 1, int (*)[3])", "ioctl M = 0x40087801 write int[3]* in test.h"),
        ("_IOC(_IOC_READ, 'x', 1, sizeof(struct pair))", "ioctl M = 0x80107801 read struct pair in test.h"),
        ("_IOC(_IOC_NONE, 'x', 1, sizeof(int))", "ioctl M = 0x47801 none int in test.h"),
        ("(_IOC((_IOC_READ | _IOC_WRITE), TYPE, 1, sizeof (char[2])))", "ioctl M = 0xc0023b01 readwrite char[2] in test.h"),
        ("_IOC(_IOC_WRITE, 'x', 1, 0)", "ioctl M = 0x40007801 write in test.h"),
        ("_IOC(_IOC_READ, 'x', 1, 12)", "constant M = 0x800c7801 in test.h"),
        ("_IOC(_IOC_READ, 'x', 1, sizeof(int) + sizeof(int))", "constant M = 0x80087801 in test.h"),
        ("_IOC(2U, 'x', 1, sizeof(int))", "constant M = 0x80047801 in test.h"),
        ("_IOC(_IOC_READ, 'x', 1, sizeof(opaque))", "omitted macro M in test.h: struct opaque is not defined"),
        ("(_IOW(TYPE, 1, int)) | (_IOW(TYPE, 2, int))", "constant M = 0x40043b03 in test.h"),
        ("(TYPE, 1)", "omitted macro M in test.h: a ExprList is not part of an integer constant"),
        ("_IOW('x', 1, struct absent)", "omitted macro M in test.h: names absent, which the headers do not define"),
        ("_IOW('x', 1, absent_t)", "omitted macro M in test.h: names absent_t, which the headers do not define"),
        ("_IOW('x', 1, opaque)", "omitted macro M in test.h: struct opaque is not defined"),
        ("pair", "omitted macro M in test.h: is not an expression: pair, the tag of struct pair"),
        ("sizeof(void)", "omitted macro M in test.h: void has no size"),
        ("1" + " + 1" * 900, "omitted macro M in test.h: is nested too deeply"),
    ],
)  # fmt: skip
def test_macros_as_headers_have_them(
    body: str, fact: str, table: TargetTable, tmp_path: Path
) -> None:
    more = (
        "typedef struct opaque opaque;\n#define _IOW(type, nr, size) (1U << 30 | (type) << 8 | (nr) | sizeof(size) << 16)\n"
        "#define TYPE (';')\n#define VENDOR(nr, size) _IOW(TYPE, nr, size)\n"
        "#define THE_PAIR struct pair\n"
        "#define _IOC(direction, type, nr, size) ((direction) << 30 | (type) << 8 | (nr) | (size) << 16)\n"
        "#define _IOC_NONE 0U\n#define _IOC_WRITE 1U\n#define _IOC_READ 2U\n"
    )
    text = f"{PROLOGUE}{more}#define M {body}\n"
    abi = headers.prove(text, table.targets["kvm_x86_64"], table, tmp_path)
    assert fact in write_abi(abi).splitlines()


def test_one_that_is_not_an_expression_takes_no_other_with_it(
    table: TargetTable, tmp_path: Path
) -> None:
    """Not all that the parser says of one tells which one it is."""
    numbers = "".join(f"#define N{number} (({number}) + 1)\n" for number in range(5))
    odd = "#define FIRST [0 ... (3)] = 1\n#define A_LATER_ONE [1 ... (3) + (4)] = 1\n"
    text = f"{odd}{numbers}#define LAST (sizeof(int) + 1)\n"
    abi = headers.prove(text, table.targets["kvm_x86_64"], table, tmp_path)
    assert [c.name for c in abi.constants] == ["LAST", *(f"N{number}" for number in range(5))]
    assert {o.name for o in abi.omissions} == {"FIRST", "A_LATER_ONE"}


@pytest.mark.parametrize(
    ("definition", "reason"),
    [
        ("#define M", "is empty"),
        ("#define M PAGE_SIZE", "names PAGE_SIZE, which the headers do not define"),
        ("#define M sizeof(struct absent)", "names absent, which the headers do not define"),
        ('#define M L"text"', 'is a string of wide characters: L"text"'),
        ("#define M 1.5", "1.5 is not an integer"),
        ("#define M byte", "is not an expression: byte"),
        ("#define M { 1 }", "is not an expression: { 1 }"),
        ("#define M (1 / 0)", "it divides by zero"),
        ("#define M (0x7fffffff + 1)", "it overflows"),
        ("#define M (1 << 32)", "it shifts 32 bits by 32"),
        ("#define M 99999999999999999999", "99999999999999999999 fits no integer type"),
        ("#define M __attribute__((packed))", "is not an expression: __attribute__((packed))"),
        ("#define M NEGATIVE\n#define NEGATIVE NEGATIVE", ""),
        ("#define M (2 +", "is not an expression: (2 +"),
    ],
)
def test_what_is_no_integer_is_omitted_with_the_reason(
    definition: str, reason: str, table: TargetTable, tmp_path: Path
) -> None:
    abi = headers.prove(f"{PROLOGUE}{definition}\n", table.targets["kvm_x86_64"], table, tmp_path)
    reasons = {omission.name: omission.reason for omission in abi.omissions}
    assert reasons.get("M", "") == reason
    assert ("M" in {constant.name for constant in abi.constants}) == (not reason)


IOCTLS = "#define _IOW(type, nr, size) (1U << 30 | (type) << 8 | (nr) | sizeof(size) << 16)\n#define VENDOR(x) _IOW(x, 1, int)\n"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("_IOW('x', 1, 3)", "3 is not a type"),
        ("_IOW(ABSENT, 1, int)", "names ABSENT, which the headers do not define"),
        ("_IOW(ABSENT, 1, struct absent)", "names ABSENT, which the headers do not define"),
        ("VENDOR(ABSENT)", "names ABSENT, which the headers do not define"),
        ("_IOW('x', 1, void)", "void has no size"),
        ("_IOW('x' / 0, 1, int)", "it divides by zero"),
        (
            "_IOW('x', 1, int) {}",
            "is not an expression: (1U << 30 | ('x') << 8 | (1) | sizeof(int) << 16) {}",
        ),
        ("_IOR('x', 1, int)", "names _IOR, which the headers do not define"),
        ("_IOW('x', 1, int)" + " + 1" * 900, "is nested too deeply"),
    ],
)
def test_an_ioctl_number_is_never_merely_left_out(
    body: str, reason: str, table: TargetTable, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        headers.read(f"{IOCTLS}\n#define M {body}\n", table.targets["kvm_x86_64"], table, tmp_path)
    (problem,) = caught.value.problems
    assert problem.where == "test.h:4"
    assert problem.what == f"the ioctl number M cannot be computed: {reason}"


@pytest.mark.parametrize(
    "body", ["(sizeof(wide) * 2)", "_IOW('x', 1, wide)", "_IOW('x', 1, wide[2])"]
)
def test_what_a_macro_needs_and_cannot_be_read_is_refused(
    body: str, table: TargetTable, tmp_path: Path
) -> None:
    text = f"{IOCTLS}\ntypedef int wide __attribute__((vector_size(16)));\n#define M {body}\n"
    with pytest.raises(InputError) as caught:
        headers.read(text, table.targets["kvm_x86_64"], table, tmp_path)
    (problem,) = caught.value.problems
    assert problem.where == "test.h:5"
    assert problem.what == (
        "the macro M cannot be evaluated: the type wide cannot be read:"
        " the attribute vector_size(16) is not known; it may change a layout (test.h:4)"
    )
