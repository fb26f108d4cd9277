"""Snippets of C in, facts out; and what is refused, with its header and line."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from vmm_arch_gen.abi.writer import write_abi
from vmm_arch_gen.diagnostics import InputError
from vmm_arch_gen.extract.extract import extract
from vmm_arch_gen.targets import Target, TargetTable

import headers


@pytest.fixture
def kvm(table: TargetTable) -> Target:
    return table.targets["kvm_x86_64"]


def facts(text: str, target: Target, table: TargetTable, folder: Path) -> str:
    """The facts of a header without those that every header has, as the .abi file gives them."""
    lines = write_abi(headers.prove(text, target, table, folder)).splitlines()[:-1]
    ours = (
        line
        for line in lines
        if not re.match(r"vmm-arch|target|model|origin|ioctl_rules|header", line)
    )
    return "".join(line.replace(" in test.h", "") + "\n" for line in ours)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "struct s { unsigned char a; unsigned long b; };",
            """\
struct s is 16 bytes aligned 8
  @ 0 a unsigned char
  @ 8 b unsigned long
""",
        ),
        (
            "typedef struct { int a; } plain; typedef struct tag { int b; } tag, *tag_pointer;",
            """\
typedef struct plain is 4 bytes aligned 4: @ 0 a int
struct tag is 4 bytes aligned 4: @ 0 b int
typedef tag is struct tag
typedef tag_pointer is struct tag*
""",
        ),
        (
            "struct s { union { int a; struct { char b; }; union { char c; }; }; union { int d; } named[2]; };",
            """\
struct s is 12 bytes aligned 4
  @ 0 - union s.<union> is 4 bytes aligned 4
    @ 0 a int
    @ 0 - struct s.<struct> is 1 bytes aligned 1: @ 0 b char
    @ 0 - union s.<union2> is 1 bytes aligned 1: @ 0 c char
  @ 4 named union s.named[2] is 4 bytes aligned 4: @ 0 d int
""",
        ),
        (
            "struct s { unsigned a : 3, : 5, b : 24; unsigned long rest[]; };",
            """\
struct s is 8 bytes aligned 8
  @ 0.0:3 a unsigned int
  @ 0.3:5 - unsigned int
  @ 1.0:24 b unsigned int
  @ 8 rest unsigned long[]
""",
        ),
        (
            "struct __attribute__((__packed__)) s { char a; int b; };"
            "struct t { char a; int b; } __attribute__((packed, aligned(2)));"
            "struct u { char a; __attribute__((aligned(8))) int b; _Alignas(16) char c; };"
            "struct v { char a; char *b __attribute__((aligned(32))); };",
            """\
struct s is 5 bytes aligned 1 packed
  @ 0 a char
  @ 1 b int
struct t is 6 bytes aligned 2 packed aligned(2)
  @ 0 a char
  @ 1 b int
struct u is 32 bytes aligned 16
  @ 0 a char
  @ 8 b int aligned(8)
  @ 16 c char aligned(16)
struct v is 64 bytes aligned 32
  @ 0 a char
  @ 32 b char* aligned(32)
""",
        ),
        (
            "typedef unsigned long long wide __attribute__((aligned(16)));"
            "union __attribute__((aligned(16))) u { wide w; };",
            """\
union u is 16 bytes aligned 16 aligned(16): @ 0 w wide
typedef wide is unsigned long long aligned(16)
""",
        ),
        (
            "enum e { A, B = 5, C }; enum { D = -1 }; typedef enum { E = 0x100000000 } f;",
            """\
enum <D> is int
  D = -1
enum e is unsigned int
  A = 0
  B = 5
  C = 6
typedef enum f is unsigned long
  E = 4294967296
""",
        ),
        (
            "struct s; int f(struct s *, const char name[4], void (*call)(int), ...);"
            "typedef int (*callback)(void); extern int variable; static inline int g(void) { return 1; }",
            """\
function f is int(struct s*, char const* name, void(int)* call, ...)
typedef callback is int()*
omitted function g: a function with a body: no part of a binary interface
omitted record struct:s: declared, but defined nowhere
omitted variable variable: a variable: no hypervisor's interface has any
""",
        ),
        (
            "#define SIZE (2 * 8)\n#define FLAG (1 << 4)\n#define _IOW(t, n, s) (1U << 30 | sizeof(s) << 16 | t << 8 | n)\n"
            "struct s { char a[SIZE]; };\n#define SET _IOW('x', 3, struct s)\n#undef FLAG\n",
            """\
constant SIZE = 16
ioctl SET = 0x40107803 write struct s
macro _IOW(t, n, s) -> u64 = 0x40000000 | (sizeof(s) << 16) | (t << 8) | n
struct s is 16 bytes aligned 1: @ 0 a char[16]
""",
        ),
        ("struct s { int x; _Static_assert(1, \"\"); struct inner { char y; }; };", """\
struct inner is 1 bytes aligned 1: @ 0 y char
struct s is 4 bytes aligned 4: @ 0 x int
"""),
    ],
)  # fmt: skip
def test_facts(text: str, expected: str, kvm: Target, table: TargetTable, tmp_path: Path) -> None:
    assert facts(text, kvm, table, tmp_path) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n\nint broken(;\n", r"test.h:3:\d+: pycparser cannot read this"),
        ("struct s { int a : 40; };", r"test.h:1: .*wider than its type|the compiler says"),
        ("struct s { struct t inside; };", r"test.h:1: struct t is not defined"),
        ("struct s { int a[-1]; };", r"test.h:1: "),
        ("struct s { int a; } __attribute__((scalar_storage_order(\"big-endian\")));", r"test.h:1: the attribute scalar_storage_order.* is not known; it may change a layout; give the target a shim"),
        ("typedef int t __attribute__((mode(DI)));", r"test.h:1: the attribute mode\(DI\) is not known"),
        ("struct s { int a __attribute__((aligned)); };", r"the attribute aligned is not known"),
        ("struct s { char a; int b __attribute__((packed)); };", r"the attribute packed on one member, b"),
        ("#pragma pack(push, 1)\nstruct s { char a; int b; };", r"test.h:1: #pragma pack\(push, 1\) is not known"),
        ("struct s { unknown_t a; };", r"test.h:1: pycparser cannot read this"),
        ("typedef struct { int a; } *pointer;", r"test.h:1: an unnamed struct that is neither"),
        ("enum e { A = B };", r"test.h:1: names B, which the headers do not define"),
        ("_Static_assert(sizeof(int) == 5, \"five\");", r"test.h:1: the header's own static assertion is false: \"five\""),
        ("#include <absent.h>\n", r"absent.h: this header is in none of the include folders \(.*\); name the folder"),
        ("#error not for you\n", r"test.h:1: the compiler says: not for you"),
        ("long double wide;", r"the type long double is not known"),
        ("struct s { int a; };\nstruct s { int a; };", r"struct s is defined twice"),
        ("int x[" + "(" * 5000 + "1" + ")" * 5000 + "];", r"test.h:1: is nested too deeply|the compiler says"),
        ("int x __attribute__((packed;", r"an attribute's parentheses are not closed"),
    ],
)  # fmt: skip
def test_refusals(text: str, message: str, kvm: Target, table: TargetTable, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        facts(text, kvm, table, tmp_path)
    assert all(problem.remedy for problem in caught.value.problems)


def test_everything_wrong_is_said_at_once(kvm: Target, table: TargetTable, tmp_path: Path) -> None:
    text = "enum e { A = X };\nenum f { B = Y };\n"
    with pytest.raises(InputError) as caught:
        headers.read(text, kvm, table, tmp_path)
    assert [problem.where for problem in caught.value.problems] == ["test.h:1", "test.h:2"]


def test_a_header_that_cannot_be_read(kvm: Target, table: TargetTable, tmp_path: Path) -> None:
    (tmp_path / "test.h").mkdir()
    toolchain = headers.toolchain(kvm, table, tmp_path)
    with pytest.raises(InputError, match=r"test\.h: this header is in none|cannot be read"):
        extract(headers.small_target(kvm), toolchain)


def test_a_header_that_is_no_text(kvm: Target, table: TargetTable, tmp_path: Path) -> None:
    (tmp_path / "test.h").write_bytes(bytes(range(256)) * 4)
    toolchain = headers.toolchain(kvm, table, tmp_path)
    with pytest.raises(InputError, match=r"test\.h:\d+"):
        extract(headers.small_target(kvm), toolchain)


def test_a_missing_header_is_named(kvm: Target, table: TargetTable, tmp_path: Path) -> None:
    toolchain = headers.toolchain(kvm, table, tmp_path)
    with pytest.raises(InputError, match=r"linux/kvm\.h: this header is in none of the include"):
        extract(kvm, toolchain)


PIECES = [
    "struct", "union", "s", "t", "{", "}", ";", "int", "char", "x", "y", ":", "3", "[", "]", "*", "(", ")",
    "__attribute__((packed))", "typedef", "enum", "=", ",", "unsigned", "\n", "#define M", "#undef M",
    "sizeof", "_Static_assert", "__declspec(align(8))", "const", "...", "'a'", '"text"', "\\", "@", "é",
]  # fmt: skip


@settings(
    max_examples=80,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=25))
def test_no_header_makes_it_crash(pieces: list[str], table: TargetTable) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            headers.prove(" ".join(pieces) + "\n", table.targets["kvm_x86_64"], table, Path(folder))
        except InputError as error:
            assert all(p.where and p.what and p.remedy for p in error.problems)
