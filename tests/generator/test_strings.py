"""Macros that are texts: from the header to the module, as the compiler has them."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import string_mutations
from hypothesis import given
from hypothesis import strategies as st
from test_compare import check
from test_generated_abi import load, read
from vmm_arch_gen.abi.model import Abi, Constant, VerifiedAbi
from vmm_arch_gen.abi.reader import read_abi
from vmm_arch_gen.abi.text import quoted, unquoted
from vmm_arch_gen.abi.writer import write_abi
from vmm_arch_gen.compare.compare import compare
from vmm_arch_gen.compare.report import as_text
from vmm_arch_gen.diagnostics import InputError
from vmm_arch_gen.extract.extract import extract
from vmm_arch_gen.extract.verify import verify
from vmm_arch_gen.generate.generate import render_abi_module
from vmm_arch_gen.project import Project, project
from vmm_arch_gen.show.find import find
from vmm_arch_gen.show.text import as_json
from vmm_arch_gen.show.text import as_text as shown
from vmm_arch_gen.targets import Target, TargetTable

import headers

HEADER = r"""
#define SUFFIX "-pci"
#define NAME "vfio" SUFFIX
#define IN_PARENTHESES (("two  spaces"	"and a tab"))
#define TEXT_OF(x) #x
#define MADE TEXT_OF(KVM  VERSION)
#define SIGNATURE "KVMKVMKVM\0\0\0"
#define ESCAPES "\a\b\f\n\r\t\v\\\'\"\?\101\x42\x00e\u00e9"
#define LATIN u8"café"
#define EMPTY ""
#define QUOTES "it's \"so\""
#define PARENTHESIS ")("
"""
VALUES = {
    "SUFFIX": b"-pci",
    "NAME": b"vfio-pci",
    "IN_PARENTHESES": b"two  spacesand a tab",
    "MADE": b"KVM VERSION",
    "SIGNATURE": b"KVMKVMKVM\0\0\0",
    "ESCAPES": b"\a\b\f\n\r\t\v\\'\"?A" + b"B\x0e\xc3\xa9",
    "LATIN": b"caf\xc3\xa9",
    "EMPTY": b"",
    "QUOTES": b'it\'s "so"',
    "PARENTHESIS": b")(",
}


@pytest.fixture
def abi(table: TargetTable, tmp_path: Path) -> VerifiedAbi:
    return headers.prove(HEADER, table.targets["kvm_x86_64"], table, tmp_path)


def test_they_are_the_bytes_that_the_compiler_makes_of_them(abi: VerifiedAbi) -> None:
    assert {s.name: s.value for s in abi.strings} == VALUES
    assert [o.name for o in abi.omissions] == ["TEXT_OF"]
    text = write_abi(abi)
    assert 'string SIGNATURE = "KVMKVMKVM\\000\\000\\000" in test.h\n' in text
    assert text.isascii()
    assert read_abi(text, "x", abi.target) == abi
    module: dict[str, Any] = {"__name__": "strings"}
    exec(render_abi_module(project().templates, abi), module)
    assert {name: module[name] for name in VALUES} == VALUES


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('#define A L"wide"', 'is a string of wide characters: L"wide"'),
        ('#define A U"wide" "r"', 'is a string of wide characters: U"wide" "r"'),
        ('#define A {"a", "b"}', 'is not an expression: {"a", "b"}'),
        ('#define A "a" B', 'is not an expression: "a" B'),
        ('#define A "a"[0]', 'is not an expression: "a"[0]'),
        ("#define A __FILE__", "depends on where, when or by which compiler it is expanded"),
        (
            "#define B __DATE__ __TIME__\n#define A B",
            "depends on where, when or by which compiler it is expanded",
        ),
        ("#define A __LINE__", "depends on where, when or by which compiler it is expanded"),
        (r'#define A "\q"', r"has an unknown escape sequence: \q"),
    ],
)
def test_what_is_no_text_is_left_out_with_the_reason(
    text: str, reason: str, table: TargetTable, tmp_path: Path
) -> None:
    abi = headers.read(text, table.targets["kvm_x86_64"], table, tmp_path)
    assert {o.name: o.reason for o in abi.omissions}["A"] == reason
    assert not abi.strings


def test_a_header_that_is_not_utf_8_gives_its_own_bytes(table: TargetTable, tmp_path: Path) -> None:
    target = table.targets["kvm_x86_64"]
    (tmp_path / "test.h").write_bytes(b'#define LATIN "caf\xe9abc"\n')
    small, toolchain = headers.small_target(target), headers.toolchain(target, table, tmp_path)
    abi = verify(extract(small, toolchain), small, toolchain)
    assert [s.value for s in abi.strings] == [b"caf\xe9abc"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("NAME", b"vfio-pcj", "char 7 of NAME is 106 as read from the header, but 105 for the compiler"),
        ("NAME", b"vfio-pc", "type char[8] of NAME is that as read from the header, but something else"),
        ("EMPTY", b"\0", "type char[2] of EMPTY is that as read from the header, but something else"),
    ],
)  # fmt: skip
def test_a_wrong_text_is_refused(
    name: str, value: bytes, message: str, abi: Abi, table: TargetTable, tmp_path: Path
) -> None:
    target = table.targets["kvm_x86_64"]
    wrong = tuple(dataclasses.replace(s, value=value) if s.name == name else s for s in abi.strings)
    with pytest.raises(InputError) as caught:
        verify(
            dataclasses.replace(abi, strings=wrong),
            headers.small_target(target),
            headers.toolchain(target, table, tmp_path),
        )
    assert message in str(caught.value)


@given(value=st.binary(max_size=40))
def test_the_facts_spell_any_bytes_in_one_way(value: bytes) -> None:
    assert unquoted(quoted(value)) == value
    assert quoted(value).isascii()
    assert quoted(value).isprintable()


@pytest.mark.parametrize("text", [r'"\a"', r'"\x41"', r'"\101"', r'"\0"', r'"\777"', '"\t"'])
def test_another_spelling_is_no_fact(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not spelt as|range"):
        unquoted(text)


def literals(chance: random.Random, value: bytes) -> Iterator[str]:
    """Some of the ways in which C can spell bytes, in pieces that it joins."""
    while value or chance.random() < 0.1:
        size = chance.randint(0, 8)
        piece, value = value[:size], value[size:]
        spelt = ""
        for char in piece:
            plain = chr(char) if 0x20 <= char < 0x7F and char not in b'"\\?' else f"\\{char:03o}"
            ways = [plain, f"\\{char:03o}", f'\\x{char:x}""' if chance.random() < 0.5 else plain]
            spelt += chance.choice(ways)
        yield f'"{spelt}"'


def test_random_texts(target: Target, table: TargetTable, tmp_path: Path) -> None:
    chance = random.Random(target.name)
    values = {f"X{n}": chance.randbytes(chance.randrange(30)) for n in range(150)}
    lines = [
        f'#define {name} {" ".join(literals(chance, value)) or chr(34) * 2}'
        for name, value in values.items()
    ]
    abi = headers.prove("\n".join(lines) + "\n", target, table, tmp_path)
    assert {s.name: s.value for s in abi.strings} == values
    assert read_abi(write_abi(abi), "x", abi.target) == abi


def test_mutations_are_called_what_they_are(abi: VerifiedAbi) -> None:
    ours = [m for m in string_mutations.MUTATIONS if m.__module__ == string_mutations.__name__]
    plus_numbers = dataclasses.replace(
        abi, constants=tuple(Constant(f"N_{n}", n, 10, "n.h") for n in range(9))
    )
    tried = 0
    for mutation in ours:
        for seed in range(70):
            mutated = mutation(plus_numbers, random.Random(f"{mutation.__name__} {seed}"))
            assert mutated is not None
            check(plus_numbers, *mutated, mutation.__name__)
            tried += 1
    assert tried >= 500


def test_what_is_said_of_changed_texts(table: TargetTable, tmp_path: Path) -> None:
    old = '#define A "one two"\n#define B "x"\n#define C 1\n#define KEPT_NAME "k"'
    new = '#define A "one three"\n#define B 0x10\n#define C "1"\n#define KEPT_NAME_NOW "k"'
    kvm = table.targets["kvm_x86_64"]
    before, after = (headers.prove(text, kvm, table, tmp_path) for text in (old, new))
    lines = "\n".join(line for line, _ in as_text([compare(before, after)]))
    assert lines.partition("\n\n")[2] == (
        "renamed: 1 string\n"
        '! KEPT_NAME -> KEPT_NAME_NOW  "k"\n\n'
        "retyped: 1 constant\n"
        '! B  "x" -> 0x10\n\n'
        "retyped: 1 string\n"
        '! C  1 -> "1"\n\n'
        "changed: 1 string\n"
        '! A  "one two" -> "one three"'
    )


def test_they_are_shown(abi: VerifiedAbi, tmp_path: Path) -> None:
    (tmp_path / "kvm_x86_64.abi").write_text(write_abi(abi))
    found, others = find(tmp_path, "*NAT*", ())
    lines = [line for line, _ in shown(found, others, expand=False)]
    assert lines[2:] == ['SIGNATURE  "KVMKVMKVM\\000\\000\\000", in test.h']
    assert '"value": "KVMKVMKVM\\u0000\\u0000\\u0000"' in as_json(found, expand=False)


def test_modules_have_them(target: Target, paths: Project) -> None:
    module = load(target.name)
    for string in read(target.name, paths).strings:
        assert getattr(module, string.name) == string.value
