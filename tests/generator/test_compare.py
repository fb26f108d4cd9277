"""What ``diff`` says of changes: of seeded ones, of headers' text, of two real kernels."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from macro_mutations import MUTATIONS
from mutations import users
from requirements import require
from vmm_arch_gen.abi.model import Abi, Omission
from vmm_arch_gen.abi.reader import read_abi_file
from vmm_arch_gen.abi.writer import write_abi
from vmm_arch_gen.compare.compare import compare
from vmm_arch_gen.compare.model import Kind
from vmm_arch_gen.compare.report import ADDITIVE, BREAKING, NOTHING, as_text, exit_status
from vmm_arch_gen.extract.extract import extract
from vmm_arch_gen.extract.toolchain import find_toolchain
from vmm_arch_gen.extract.verify import verify
from vmm_arch_gen.generate.generate import render_abi_module
from vmm_arch_gen.generate.values import load_values
from vmm_arch_gen.project import Project
from vmm_arch_gen.targets import Target, TargetTable

import headers


def test_mutations_are_called_what_they_are(sample_target: Target, paths: Project) -> None:
    """At least fifty for each target, of every kind that it has something for."""
    target = sample_target
    abi = read_abi_file(paths.abi / f"{target.name}.abi")
    tried = 0
    for mutation in MUTATIONS:
        for seed in range(2 if len(abi.records) > 9 else 20):  # few suit a small target
            chance = random.Random(f"{mutation.__name__} {target.name} {seed}")
            mutated = mutation(abi, chance)
            if mutated is not None:
                check(abi, *mutated, mutation.__name__)
                tried += 1
    assert tried >= 50


def check(abi: Abi, after: Abi, expected: set[tuple[Kind, str]], mutation: str) -> None:
    """That all that has to be said is said, and of nothing else but what is made of it."""
    comparison = compare(abi, after)
    said = {(change.kind, change.name) for change in comparison.changes}
    assert expected <= said, f"{mutation}: {expected - said} not in {said}"
    names = {name for _, name in expected}
    assert {(kind, name) for kind, name in said if name in names} == expected, f"{mutation}: {said}"
    headings = [line for line, style in as_text([comparison]) if style == "bold"]
    assert len(headings) == len(set(headings)), f"{mutation}: {headings}"
    for line, _ in as_text([comparison]):
        assert len(line) <= 80 or max(map(len, line.split())) > 34, line  # a long name
    others = {name for _, name in said} - names
    assert others <= users(abi, names) | users(after, names), f"{mutation}: {said}"
    kinds = {kind for kind, _ in expected}
    if not any(kind.breaking for kind in kinds):
        assert not comparison.breaking, f"{mutation}: {said}"
    status = BREAKING if any(kind.breaking for kind in kinds) else ADDITIVE if kinds else NOTHING
    assert exit_status([comparison]) == status


def test_every_mutation_is_tried_somewhere(paths: Project) -> None:
    abis = [read_abi_file(path) for path in sorted(paths.abi.glob("*.abi"))]
    for mutation in MUTATIONS:
        assert any(mutation(abi, random.Random(1)) for abi in abis), mutation.__name__


@pytest.mark.parametrize(
    ("old", "new", "report"),
    [
        (
            "struct s { int a; char b; };",
            "struct s { int a; char b; long c; };",
            """\
resized: 1 record
! struct s  8 -> 16 bytes, aligned 4 -> 8
         ...
      4  b  char
+     8  c  long
""",
        ),
        (
            "struct s { int a; int b; int c; int d; int e; };",
            "struct s { int a; int e; int c; int d; unsigned b; };",
            """\
moved: fields of 1 record
  struct s  20 bytes, aligned 4
            0  a  int
!     16 -> 4  e  int
            8  c  int
           12  d  int
!     4 -> 16  b  int -> unsigned int
""",
        ),
        (
            "struct s { int flags; int pad[3]; struct { int x; } u; };",
            "struct s { int flags; int more; int pad[2]; struct { int x; int y[0]; } u; };",
            """\
added: fields of 1 record
  struct s  20 bytes, aligned 4
       0  flags  int
+      4  more   int
=      8  pad    int[2]
      16  u      struct
      16  u.x    int
+     20  u.y    int[0]
""",
        ),
        (
            "struct s { unsigned a : 3; unsigned b : 5; };",
            "struct s { unsigned a : 4; unsigned c : 4; };",
            """\
removed: fields of 1 record
  struct s  4 bytes, aligned 4
!     0.0:3 -> 0.0:4  a  unsigned int
-              0.3:5  b  unsigned int
+              0.4:4  c  unsigned int
""",
        ),
        (
            "struct old_name { int a; struct old_name *next; }; struct u { struct old_name s; };",
            "struct new_name { int a; struct new_name *next; }; struct u { struct new_name s; };",
            """\
renamed: 1 record
! struct old_name -> struct new_name  16 bytes, aligned 8
      0  a     int
=     8  next  struct new_name*

declared otherwise, with the same meaning: fields of 1 record
  struct u  16 bytes, aligned 8
=     0  s  struct new_name
""",
        ),
        (
            "#define _IOC(d, s) (((d) << 30) | ((s) << 16) | 0xAE01)\n"
            "#define _IOW(t, n, a) _IOC(1U, sizeof(a))\nstruct s { int a; };\n"
            "#define KVM_DO _IOW(0xAE, 1, struct s)",
            "#define _IOC(d, s) (((d) << 30) | ((s) << 16) | 0xAE01)\n"
            "#define _IOW(t, n, a) _IOC(1U, sizeof(a))\nstruct s { int a, b; };\n"
            "#define KVM_DO _IOW(0xAE, 1, struct s)",
            """\
resized: 1 record
! struct s  4 -> 8 bytes, aligned 4
      0  a  int
+     4  b  int

renumbered: 1 ioctl
! KVM_DO  write 0xae/0x01, 4 -> 8 bytes (struct s)
""",
        ),
        (
            "#define KVM_CAP_ONE 1\n#define KVM_CAP_TWO 2\nenum e { A, B };",
            "#define KVM_CAP_UNO 1\n#define KVM_CAP_TWO 0x3\nenum e { A, C, B };",
            """\
renamed: 1 constant
! KVM_CAP_ONE -> KVM_CAP_UNO  1

renumbered: 1 constant
! KVM_CAP_TWO  2 -> 0x3

renumbered: 1 enumerator
! B  1 -> 2

added: 1 enumerator
+ C  1
""",
        ),
        (
            "int f(int a); typedef int t; typedef struct { int a; } r; enum e { A };",
            "int f(long b); typedef long t; typedef struct { int b; } r; enum e { A = -1 };",
            """\
renamed: fields of 1 record
  r  4 bytes, aligned 4
!     0  a -> b  int

resized: 1 typedef
! t  int -> long, 4 -> 8 bytes

retyped: 1 enum
! enum e  unsigned int -> int, 4 bytes

retyped: 1 function
! f  int(int a) -> int(long b)

renumbered: 1 enumerator
! A  0 -> -1
""",
        ),
        (
            "struct s { unsigned int a; }; typedef unsigned int t; int f(unsigned int a);",
            "struct s { unsigned short a, b; }; typedef unsigned short t; int f(unsigned short a);",
            """\
resized: fields of 1 record
  struct s  4 bytes, aligned 4 -> 2
!     0  a  unsigned int -> unsigned short, 4 -> 2 bytes
+     2  b  unsigned short

resized: 1 typedef
! t  unsigned int -> unsigned short, 4 -> 2 bytes

retyped: 1 function
! f  int(unsigned int a) -> int(unsigned short a)
""",
        ),
        (
            "#define _IOC(d, s) (((d) << 30) | ((s) << 16) | 0xAE01)\n"
            "#define _IOW(t, n, a) _IOC(1U, sizeof(a))\nstruct what_it_was_before { int a; };\n"
            "struct what_it_is_now_and_that_is_long { int a, b[0]; };\n"
            "#define KVM_DO_SOMETHING_LONG _IOW(0xAE, 1, struct what_it_was_before)",
            "#define _IOC(d, s) (((d) << 30) | ((s) << 16) | 0xAE01)\n"
            "#define _IOW(t, n, a) _IOC(1U, sizeof(a))\nstruct what_it_was_before { int a; };\n"
            "struct what_it_is_now_and_that_is_long { int a, b[0]; };\n"
            "#define KVM_DO_SOMETHING_LONG _IOW(0xAE, 1, struct what_it_is_now_and_that_is_long)",
            """\
retyped: 1 ioctl
! KVM_DO_SOMETHING_LONG  write 0xae/0x01, 4 bytes
      struct what_it_was_before -> struct what_it_is_now_and_that_is_long
""",
        ),
        (
            "struct a { int x; }; struct b { int x; short y; short z; }; struct c { char x; };",
            "struct b { int x; short y; };",
            """\
removed: 2 records
- struct a  4 bytes, aligned 4
- struct c  1 byte, aligned 1

removed: fields of 1 record
  struct b  8 bytes, aligned 4
         ...
      4  y  short
-     6  z  short
""",
        ),
        (
            "int set_up(int first_of_many, unsigned long second_of_many, char *third_of_many);",
            "int set_up(int first_of_many, unsigned int second_of_many, char *third_of_many);",
            """\
retyped: 1 function
! set_up
      int(int first_of_many, unsigned long second_of_many, char* third_of_many)
      -> int(int first_of_many, unsigned int second_of_many, char*
          third_of_many)
""",
        ),
        (
            "struct s { int a; int b; int c; }; struct t { char a[16]; };",
            "struct s { int a; int c; }; struct t { char a[16]; } __attribute__((aligned(8)));",
            """\
removed: fields of 1 record
! struct s  12 -> 8 bytes, aligned 4
           0  a  int
-          4  b  int
!     8 -> 4  c  int

aligned otherwise: 1 record
! struct t  16 bytes, aligned 1 -> 8
""",
        ),
        ("#define A 16", "#define A 0x10", ""),
        ("struct s { int a[0]; };", "struct s { int a[]; };", """\
declared otherwise, with the same meaning: fields of 1 record
  struct s  0 bytes, aligned 4
=     0  a  int[]
"""),
    ],
)  # fmt: skip
def test_what_is_said_of_a_header(
    old: str, new: str, report: str, table: TargetTable, tmp_path: Path
) -> None:
    kvm = table.targets["kvm_x86_64"]
    before, after = (headers.prove(text, kvm, table, tmp_path) for text in (old, new))
    lines = [line for line, _ in as_text([compare(before, after)])]
    groups = "\n".join(line for line in lines if not line.startswith("  from")).partition("\n\n")[2]
    assert groups + "\n" * bool(report) == report
    assert all(len(line) <= 80 for line in lines)


def test_why_something_is_gone_is_said_however_long_it_is(paths: Project) -> None:
    abi = read_abi_file(paths.abi / "kvm_x86_64.abi")
    (gone,) = (c for c in abi.constants if c.name == "KVM_CAP_ARM_WRITABLE_IMP_ID_REGS")
    reason = f"names {'QUITE_LONG_' * 3}PAGE_SIZE, which the headers do not define"
    omission = Omission("macro", gone.name, gone.header, reason)
    kept = tuple(c for c in abi.constants if c is not gone)
    after = replace(abi, constants=kept, omissions=(*abi.omissions, omission))
    lines = [line for line, _ in as_text([compare(abi, after)])]
    assert lines[-3:] == [
        "- KVM_CAP_ARM_WRITABLE_IMP_ID_REGS  239",
        "      now left out: it names QUITE_LONG_QUITE_LONG_QUITE_LONG_PAGE_SIZE, which",
        "          the headers do not define",
    ]


def test_another_data_model_is_a_breaking_change(paths: Project) -> None:
    abi = read_abi_file(paths.abi / "kvm_x86_64.abi")
    model = replace(abi.model, byte_order="big", signed_char=False)
    lines = [line for line, _ in as_text([compare(abi, replace(abi, model=model))])]
    assert lines == [
        "kvm_x86_64: 1 breaking change",
        "",
        "retyped: 1 model",
        "! the data model  little -> big endian, signed -> unsigned char",
    ]


def test_what_is_left_out_from_now_on_is_said_with_the_reason(paths: Project) -> None:
    abi = read_abi_file(paths.abi / "kvm_x86_64.abi")
    new = Omission("macro", "KVM_NEW", "linux/kvm.h", "names NEW, which the headers do not define")
    lines = [
        text for text, _ in as_text([compare(abi, replace(abi, omissions=(*abi.omissions, new)))])
    ]
    assert lines == [
        "kvm_x86_64: 1 compatible change",
        "",
        "now left out: 1 declaration",
        "+ KVM_NEW  names NEW, which the headers do not define",
    ]


def test_linux_6_1_to_the_pinned_headers(
    table: TargetTable, paths: Project, tmp_path: Path
) -> None:
    """Debian bookworm's headers against the pinned ones: complete, and nothing else."""
    version = Path("/usr/include/linux/version.h")
    known = version.is_file() and "PATCHLEVEL 1\n" in version.read_text()
    require(known and shutil.which("gcc") is not None, "no gcc with Linux 6.1's headers")
    kvm = table.targets["kvm_x86_64"]
    folders = (Path("/usr/include"), Path("/usr/include/x86_64-linux-gnu"))
    toolchain = find_toolchain(kvm, table.package, include=folders, cc="gcc")
    old = verify(extract(kvm, toolchain), kvm, toolchain)
    new = read_abi_file(paths.abi / "kvm_x86_64.abi")
    changes = compare(old, new).changes
    things = [c for c in changes if c.what != "omission"]
    come_or_gone = [c for c in things if c.kind in (Kind.REMOVED, Kind.ADDED) and not c.fields]
    assert {c.name for c in come_or_gone} == names(old) ^ names(new)
    count = Counter(c.what for c in come_or_gone)
    assert count["struct"] + count["union"] == 53
    macros = [c for c in come_or_gone if c.what in ("constant", "ioctl")]
    kvm_headers = [c for c in macros if str((c.old or c.new or {})["header"]).endswith("/kvm.h")]
    assert len(kvm_headers) == 243
    resized = {
        c.name for c in changes if c.old and c.new and c.old.get("size") != c.new.get("size")
    }
    assert resized == {"struct kvm_svm_nested_state_hdr", "struct kvm_vcpu_pv_apf_data"}
    assert not [c for c in changes if c.kind is Kind.RENAMED]
    values = load_values(paths.values_file)
    before, after = (render_abi_module(paths.templates, abi, values) for abi in (old, new))
    assert changed_lines(write_abi(old), write_abi(new), tmp_path) <= 720
    assert changed_lines(before, after, tmp_path) <= 1300


def changed_lines(before: str, after: str, folder: Path) -> int:
    """How many lines git shows as removed or added."""
    for name, text in (("before", before), ("after", after)):
        (folder / name).write_text(text)
    command = ["git", "diff", "--no-index", "--numstat", "before", "after"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return sum(map(int, done.stdout.split()[:2]))


def names(abi: Abi) -> set[str]:
    """All that has a name."""
    enums = abi.enums.values()
    return {
        *(c.name for c in abi.constants),
        *(s.name for s in abi.strings),
        *(m.name for m in abi.macros),
        *(i.name for i in abi.ioctls),
        *(f.name for f in abi.functions),
        *(name for enum in enums for name, _ in enum.enumerators),
        *(enum.key for enum in enums if "<" not in enum.key),
        *abi.typedefs,
        *(key for key, record in abi.records.items() if not record.unnamed),
    }
