"""The .abi file: what is written is read back, and nothing else is."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vmm_arch_gen.abi import types
from vmm_arch_gen.abi.reader import read_abi, read_abi_file
from vmm_arch_gen.abi.text import FORMAT, MAGIC
from vmm_arch_gen.abi.types import Array, Function, Named, Pointer, Scalar, Type
from vmm_arch_gen.abi.writer import write_abi
from vmm_arch_gen.diagnostics import InputError
from vmm_arch_gen.project import Project, project
from vmm_arch_gen.targets import Target

TARGET = "kvm_riscv64"
FIRST = f"{MAGIC} {FORMAT}"
TEXT = (project().abi / f"{TARGET}.abi").read_text()


def sealed(text: str) -> str:
    """The text with a right digest, as a forger would write it."""
    body = text.rpartition("end sha256 ")[0]
    return f"{body}end sha256 {hashlib.sha256(body.encode()).hexdigest()}\n"


def edited(old: str, new: str) -> str:
    assert TEXT.count(old) >= 1, old
    return sealed(TEXT.replace(old, new, 1))


def test_a_file_is_read_as_it_was_written(target: Target, paths: Project) -> None:
    path = paths.abi / f"{target.name}.abi"
    assert write_abi(read_abi_file(path)) == path.read_text()


def test_the_facts_are_sorted() -> None:
    for kind in ("constant", "ioctl", "function", "typedef", "header"):
        lines = re.findall(rf"^{kind} (?!struct|union|enum)(\w\S*) ", TEXT, re.M)
        assert lines == sorted(lines)
    assert TEXT.isascii()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", rf"x:1: does not begin with '{FIRST}'; regenerate it"),
        ("something else\n", r"x:1: does not begin with"),
        (TEXT[:1000], r"x: is cut short: its last line is not a digest; regenerate it, also after a"),
        (TEXT[:-10], r"x: is cut short"),
        (TEXT + "constant A = 1 in b.h\n", r"x: is cut short"),
        (TEXT.replace("kvm_regs", "kvm_rags"), r"x: has been changed since it was written"),
        (TEXT.replace(FIRST, f"{MAGIC} {FORMAT + 1}"), rf"x:1: has format {FORMAT + 1}, newer than the {FORMAT} .*; upgrade"),
        (TEXT.replace(FIRST, f"{MAGIC} 1"), r"x:1: has the outdated format 1"),
        (edited(f"target {TARGET}", "target kvm_x86_64"), r"x:2: holds the facts of target 'kvm_x86_64'"),
        (edited("constant KVM_API_VERSION = 12", "constant KVM_API_VERSION = twelve"), r"x:\d+: .* is not a fact"),
        (edited("@ 0 address_lo, address_hi, data, flags, devid __u32", "@ 4 address_lo, address_hi, data, flags, devid __u32"), r"contradicts itself: struct kvm_msi is stated"),
        (edited("struct kvm_msi is 32 bytes", "struct kvm_msi is 33 bytes"), r"contradicts itself: struct kvm_msi is stated"),
        (edited("flags, devid __u32", "flags, devid __u33"), r"contradicts itself: __u33 is not defined"),
        (edited("@ 0 address_lo, address_hi,", "@ 0 address_lo\n  @ 4 address_hi,"), r"is not a fact|not in the form"),
        (edited("struct kvm_msi is 32 ", "constant X = 1 in y.h\n#"), r"'#bytes.*is not a fact: nothing of that form"),
        (edited("  @ 0 address_lo", "    @ 0 address_lo"), r"is not a fact: it is indented below nothing"),
        (edited("  @ 0 address_lo", "  address_lo = 1\n  @ 0 address_lo"), r"is not a fact: struct \w+ is not an enum"),
        (edited("struct kvm_msi is 32 bytes aligned 4 in linux/kvm.h", "enum kvm_msi is int in linux/kvm.h"), r"is not a fact: enum kvm_msi is not a record"),
        (edited("address_hi, data, flags, devid __u32", "data __u32 is 4 bytes aligned 4"), r"it defines a type that has a name of its own"),
        (edited("typedef __u32 is unsigned int", "typedef __u32 is __u32"), r"contradicts itself: __u32 is defined by itself"),
        (edited("flags, devid __u32", "flags, devid struct kvm_msi"), r"struct kvm_msi contains itself"),
        (edited("constant KVM_API_VERSION = 12", "constant KVM_API_VERSION = 012"), r"is not a fact|not in the form"),
        (re.sub(r"^origin .*\n", "", TEXT, flags=re.M), r"has been changed"),
        (sealed(re.sub(r"^origin .*\n", "", TEXT, flags=re.M)), r"no origin line"),
    ],
)  # fmt: skip
def test_anything_else_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_abi(text, "x", TARGET)
    assert all(problem.remedy for problem in caught.value.problems)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file; run: vmm-arch-gen extract --only absent"):
        read_abi_file(tmp_path / "absent.abi")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read_abi_file(tmp_path)
    (tmp_path / "binary.abi").write_bytes(f"{FIRST}\n".encode() + b"\xff\xfe")
    with pytest.raises(InputError, match="is not UTF-8 text"):
        read_abi_file(tmp_path / "binary.abi")


LINES = TEXT.splitlines(keepends=True)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """The file with some lines changed, lost, doubled or moved, and a right digest."""
    lines = list(LINES[:-1])
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(lines) - 1))
        match draw(st.sampled_from(["lose", "double", "move", "word", "byte", "number"])):
            case "lose":
                del lines[at]
            case "double":
                lines.insert(at, lines[at])
            case "move":
                lines.insert(draw(st.integers(0, len(lines) - 1)), lines.pop(at))
            case "word":
                words = lines[at].split(" ")
                words[draw(st.integers(0, len(words) - 1))] = draw(st.text(max_size=6))
                lines[at] = " ".join(words)
            case "byte":
                place = draw(st.integers(0, len(lines[at]) - 1))
                character = draw(st.characters(exclude_categories=["Cs"]))
                lines[at] = lines[at][:place] + character + lines[at][place + 1 :]
            case "number":
                number = str(draw(st.integers(-1, 1 << 70)))
                lines[at] = re.sub(r"\d+", number, lines[at], count=1)
    return sealed("".join(lines) + "end sha256 0\n")


@settings(max_examples=60, deadline=None)
@given(text=damaged())
def test_a_damaged_file_is_refused_or_still_means_what_it_says(text: str) -> None:
    try:
        abi = read_abi(text, "x", TARGET)
    except InputError:
        return
    assert write_abi(abi) == text


NAMES = st.sampled_from(
    ["__u64", "struct kvm_regs", "union kvm_run.<union>", "enum colour", "WHV_X"]
)
TYPES: st.SearchStrategy[Type] = st.recursive(
    st.one_of(NAMES.map(Named), st.sampled_from(types.SCALARS).map(Scalar)),
    lambda inner: st.one_of(
        st.builds(Pointer, inner, st.booleans()),
        st.builds(Array, inner, st.one_of(st.none(), st.integers(0, 4096))),
        st.builds(
            Function,
            inner,
            st.lists(st.tuples(st.sampled_from(["", "context", "size"]), inner), max_size=3).map(
                tuple
            ),
            st.booleans(),
        ),
    ),
    max_leaves=5,
)


@given(TYPES)
def test_types_are_read_as_they_are_spelt(kind: Type) -> None:
    assert types.parse(types.spell(kind)) == kind


@given(st.text(alphabet="intvoid_u64 *[](),.<>3", max_size=20))
def test_what_is_no_type_is_refused(text: str) -> None:
    try:
        kind = types.parse(text)
    except ValueError:
        return
    assert types.parse(types.spell(kind)) == kind


@pytest.mark.parametrize(
    ("spelt", "declared"),
    [
        ("int", "int x"),
        ("__u8[4]", "__u8 x[4]"),
        ("__u8[4][2]", "__u8 x[4][2]"),
        ("void const*", "const void *x"),
        ("int* const*", "int *const *x"),
        ("int*[3]", "int *x[3]"),
        ("int[3]*", "int (*x)[3]"),
        ("int(void* context, char)*", "int (*x)(void *context, char)"),
        ("int(...)", "int x(...)"),
        ("void()", "void x(void)"),
        ("__u64[]", "__u64 x[]"),
    ],
)
def test_types_as_c_declares_them(spelt: str, declared: str) -> None:
    assert types.declare(types.parse(spelt), "x") == declared
