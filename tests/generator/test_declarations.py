"""Snippets of C in, facts out; and what is refused, with its header and line."""

from __future__ import annotations

import dataclasses
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
        (
            "struct s { char a; int b __attribute__((packed)); long c : 7 __attribute__((aligned(8), packed)); };"
            "struct t { char a; __attribute__((packed)) long b; int __attribute__((packed)) c; };"
            "static __attribute__((unused)) inline __attribute__((always_inline)) int f(void) { return 1; }"
            "struct u { const __attribute__((aligned(8))) char a; unsigned __attribute__((packed)) int b; int (__attribute__((stdcall)) *f)(void); };",
            """\
struct s is 16 bytes aligned 8
  @ 0 a char
  @ 1 b int packed
  @ 8.0:7 c long packed aligned(8)
struct t is 13 bytes aligned 1
  @ 0 a char
  @ 1 b long packed
  @ 9 c int packed
struct u is 16 bytes aligned 8
  @ 0 a char aligned(8)
  @ 1 b unsigned int packed
  @ 8 f int()*
omitted function f: a function with a body: no part of a binary interface
""",
        ),
        (
            "struct s { char a; long double b; }; struct t { int a __attribute__((aligned)); };"
            "typedef unsigned int u64 __attribute__((__mode__(__DI__)));"
            "enum __attribute__((packed)) small { A, B = 200 }; enum packed { C = -1, D = 300 } __attribute__((packed));",
            """\
enum packed is short
  C = -1
  D = 300
enum small is unsigned char
  A = 0
  B = 200
struct s is 32 bytes aligned 16
  @ 0 a char
  @ 16 b long double
struct t is 16 bytes aligned 16: @ 0 a int aligned(16)
typedef u64 is unsigned long
""",
        ),
        (
            "struct b { char a; struct { short c; int d[4]; } e; };"
            "struct s { char a[__builtin_offsetof(struct b, e.d[2])], c[__alignof__(struct b) + _Alignof(short)], d[sizeof(((struct b *)0)->e.d)]; __typeof__(((struct b *)0)->e.d[0]) f; typeof(long) g; };"
            "_Static_assert(__builtin_offsetof(struct b, e) == 4 && sizeof(((struct b *)0)->e) == 20, \"\");"
            "_Static_assert(__builtin_types_compatible_p(int, int), \"which only the compiler evaluates\");\n"
            "#define OFF __builtin_offsetof(struct b, e.d)\n#define ALIGN __alignof__(long)\n",
            """\
constant ALIGN = 8
constant OFF = 8
struct b is 24 bytes aligned 4
  @ 0 a char
  @ 4 e struct b.e is 20 bytes aligned 4
    @ 0 c short
    @ 4 d int[4]
struct s is 56 bytes aligned 8
  @ 0 a char[16]
  @ 16 c char[6]
  @ 22 d char[16]
  @ 40 f int
  @ 48 g long
""",
        ),
        (
            "struct s { volatile int *a; const volatile char *const *b; int *volatile *c; void (*volatile d)(volatile int *); };",
            """\
struct s is 32 bytes aligned 8
  @ 0 a int volatile*
  @ 8 b char const volatile* const*
  @ 16 c int* volatile*
  @ 24 d void(int volatile*)*
""",
        ),
        (
            "int f(int a[static 3], int b[*], const char c[], int g(int));",
            """\
function f is int(int* a, int* b, char const* c, int(int)* g)
""",
        ),
        (
            "struct s; typedef unsigned char plain; typedef volatile plain lock; typedef const struct s fixed;"
            "typedef const int numbers[2]; struct t { lock a; const plain b; };",
            """\
struct t is 2 bytes aligned 1
  @ 0 a lock
  @ 1 b plain
typedef fixed is struct s
typedef lock is plain
typedef numbers is int[2]
typedef plain is unsigned char
omitted record struct:s: declared, but defined nowhere
""",
        ),
    ],
)  # fmt: skip
def test_facts(text: str, expected: str, kvm: Target, table: TargetTable, tmp_path: Path) -> None:
    assert facts(text, kvm, table, tmp_path) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n\nint broken(;\n", r"test.h:3: the compiler says: expected parameter declarator"),
        ("\n\nstruct s { int x[; };\n", r"test.h:3:18: pycparser cannot read this"),
        ("struct s { int a : 40; };", r"test.h:1: .*wider than its type|the compiler says"),
        ("struct s { struct t inside; };", r"test.h:1: struct t is not defined"),
        ("struct s { int a[-1]; };", r"test.h:1: "),
        ("struct s { int a; } __attribute__((scalar_storage_order(\"big-endian\")));", r"test.h:1: the attribute scalar_storage_order.* is not known; it may change a layout; give the target a shim"),
        ("#pragma options align=packed\nstruct s { char a; int b; };", r"test.h:1: #pragma options align=packed is not known; it may change a layout"),
        ("#pragma ms_struct on\n", r"test.h:1: #pragma ms_struct on is not known"),
        ("#pragma clang attribute push(__attribute__((packed)), apply_to = record)\n", r"test.h:1: #pragma clang attribute push.* is not known"),
        ("#pragma pack(3)\n", r"test.h:1: #pragma pack\(3\): 3 is none of 1, 2, 4, 8, 16"),
        ("#pragma pack(push, a, b)\n", r"test.h:1: #pragma pack\(push, a, b\)"),
        ("struct s {\n char a;\n#pragma pack(1)\n int b; };", r"test.h:3: #pragma pack\(1\) is inside braces"),
        ("struct s { unknown_t a; };", r"test.h:1: unknown_t is used as a type, but nothing before declares it"),
        ("typedef struct { int a; } *pointer;", r"test.h:1: an unnamed struct that is neither"),
        ("enum e { A = B };", r"test.h:1: names B, which the headers do not define"),
        ("_Static_assert(sizeof(int) == 5, \"five\");", r"test.h:1: the header's own static assertion is false: \"five\""),
        ("#include <absent.h>\n", r"test.h:1: includes absent.h, which is in none of the include folders \(.*\); name the folder"),
        ("#error not for you\n", r"test.h:1: the compiler says: not for you"),
        ("struct s { float _Complex a; };", r"test.h:1: the type float _Complex is not known"),
        ("typedef int v4 __attribute__((vector_size(16)));\n\nstruct s { v4 a; };", r"test.h:3: the type v4 cannot be read: the attribute vector_size\(16\) is not known; it may change a layout \(test.h:1\)"),
        ("typedef _Float16 half;\ntypedef half quarter;\nunion u { quarter a; };", r"test.h:3: the type quarter cannot be read: the type half cannot be read: the type _Float16 cannot be read: it is the compiler's own \(test.h:1\) \(test.h:2\)"),
        ("struct s { char a[_Generic(1, int: 3)]; };", r"test.h:1: a GenericSelection is not part of an integer constant"),
        ("typedef struct { _BitInt(24) x; } t;", r"test.h:1: a BitIntType is not a type that is known"),
        ("struct s { int a; };\nstruct s { int a; };", r"struct s is defined twice"),
        ("int x[" + "(" * 5000 + "1" + ")" * 5000 + "];", r"test.h:1: is nested too deeply|the compiler says"),
        ("int x __attribute__((packed;", r"an attribute's parentheses are not closed"),
    ],
)  # fmt: skip
def test_refusals(text: str, message: str, kvm: Target, table: TargetTable, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        facts(text, kvm, table, tmp_path)
    assert all(problem.remedy for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("text", "omitted"),
    [
        ("static inline int f(int a) { __asm__(\"}\" : \"+r\"(a)); return ({ int b = a; b; }); }", "function f: a function with a body: no part of a binary interface"),
        ("static __inline__ __attribute__((always_inline)) int\nf(int a) { __typeof__(a) b = ')' ; return b; }", "function f: a function with a body: no part of a binary interface"),
        ("static inline int f(int a) { return __builtin_offsetof(struct q { int z; }, z); }", "function f: a function with a body: no part of a binary interface"),
        ("static int f(a) int a; { return a; }", "function f: a function with a body: no part of a binary interface"),
        ("static const struct { const char *name; } names[] = { { \"a\" } };", "variable names: a variable: no hypervisor's interface has any"),
        ("typedef struct { int p; } pair; static pair two = (pair) { 1 };", "variable two: a variable: no hypervisor's interface has any"),
        ("extern _Float16 number __asm__(\"digits\");", "variable number: a variable: no hypervisor's interface has any"),
        ("int f(struct { int q; } *p);", "function f: an unnamed struct that is neither a typedef nor a member"),
        ("int f(void) __asm__(\"g\") __attribute__((nothrow));", "function f: the linker knows it by another name: \"g\""),
        ("int f(int a);\n#define f other_f\nint other_f(int a);", "function f: a macro of that name stands for something else"),
        ("int f();", "function f: is declared without its parameters"),
        ("int f(void) __attribute__((ms_abi));", "function f: the attribute ms_abi is not known; it may change a layout"),
        ("int f(const char *, __builtin_va_list);", "function f: the type __builtin_va_list cannot be read: it is the compiler's own"),
        ("typedef __builtin_va_list list;", "typedef list: the type __builtin_va_list cannot be read: it is the compiler's own (test.h:1)"),
        ("typedef int v4 __attribute__((vector_size(16)));", "typedef v4: the attribute vector_size(16) is not known; it may change a layout (test.h:1)"),
        ("typedef float _Complex z;", "typedef z: the type float _Complex is not known (test.h:1)"),
        ("typedef int odd[__builtin_types_compatible_p(int, long) + 1];", "typedef odd: pycparser cannot read this: Invalid expression (test.h:1)"),
    ],
)  # fmt: skip
def test_what_no_fact_needs_is_left_out(
    text: str, omitted: str, kvm: Target, table: TargetTable, tmp_path: Path
) -> None:
    expected = facts("struct s { int a; };", kvm, table, tmp_path)
    found = facts(f"{text}\nstruct s {{ int a; }};", kvm, table, tmp_path)
    assert f"omitted {omitted}\n" in found
    assert expected in found


def test_a_record_of_the_compilers_own_headers_is_refused_only_where_it_is_needed(
    kvm: Target, table: TargetTable, tmp_path: Path
) -> None:
    toolchain = headers.toolchain(kvm, table, tmp_path)
    own = tmp_path / "own"
    own.mkdir()
    (own / "stddef.h").write_text(
        "typedef struct { struct { int a; } b; _Float16 c; } max_align_t;\n"
    )
    toolchain = dataclasses.replace(toolchain, own_headers=own)
    target = headers.small_target(kvm)
    (tmp_path / "test.h").write_text("#include <stddef.h>\nstruct s { int a; };\n")
    abi = extract(target, toolchain)
    (left_out,) = (o for o in abi.omissions if o.name == "max_align_t")
    assert left_out.reason == "the type _Float16 cannot be read: it is the compiler's own"
    assert list(abi.records) == ["struct s"]
    (tmp_path / "test.h").write_text("#include <stddef.h>\nstruct s { max_align_t a; };\n")
    with pytest.raises(
        InputError,
        match=r"test.h:2: the type max_align_t cannot be read: .*_Float16.* \(cc:stddef.h:1\)",
    ):
        extract(target, toolchain)


def test_functions_of_the_compilers_own_headers_are_left_out(
    kvm: Target, table: TargetTable, tmp_path: Path
) -> None:
    toolchain = headers.toolchain(kvm, table, tmp_path)
    own = tmp_path / "own"
    own.mkdir()
    (own / "fenceintrin.h").write_text("typedef int mask;\nvoid _mm_fence(mask m);\n")
    toolchain = dataclasses.replace(toolchain, own_headers=own)
    (tmp_path / "test.h").write_text("#include <fenceintrin.h>\nmask f(void);\n")
    abi = extract(headers.small_target(kvm), toolchain)
    assert [function.name for function in abi.functions] == ["f"]
    (left_out,) = (o for o in abi.omissions if o.name == "_mm_fence")
    assert left_out.reason == "a function of the compiler's own headers: no library has it"


def test_an_unnamed_record_that_its_typedef_aligns_is_left_out_but_where_it_is_needed(
    kvm: Target, table: TargetTable, tmp_path: Path
) -> None:
    aligned = "typedef struct { struct { int b; } a; } wide __attribute__((aligned(16)));\n"
    why = "the typedef wide aligns the unnamed type it defines (test.h:1)"
    found = facts(f"{aligned}void f(wide *);", kvm, table, tmp_path)
    assert found == (
        f"omitted function f: the type wide cannot be read: {why}\nomitted typedef wide: {why}\n"
    )
    with pytest.raises(InputError, match=r"test\.h:2: the type wide cannot be read: "):
        headers.read(f"{aligned}struct s {{ wide a; }};", kvm, table, tmp_path)
    with pytest.raises(InputError, match=r"test\.h:1: an unnamed struct"):
        headers.read(aligned.replace(";\n", ", *pointer;\n"), kvm, table, tmp_path)


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
    "\n#pragma pack(push, 1)\n", "\n#pragma pack(pop)\n", "__pragma(pack(2))", "__asm__(\"x\")", "_In_", "offsetof", "_Alignof",
    "__attribute__((aligned(2)))", "static", "inline", "union", "1ui32", "typeof", "[[", "]]", "sizeof(int)", "mode",
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


def test_a_parameter_that_is_a_name_only(table: TargetTable, tmp_path: Path) -> None:
    """Which is what a typedef of a header that is not included looks like."""
    abi = headers.read(
        "void f(u_int);\nstruct a { int x; };\n", table.targets["kvm_x86_64"], table, tmp_path
    )
    (omission,) = abi.omissions
    assert (omission.kind, omission.name) == ("function", "f")
    assert omission.reason == "u_int is used as a type, but nothing before declares it"
