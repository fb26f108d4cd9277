"""Bit-fields of every width and type: a C program and the generated module see the same values."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from interpreters import Unavailable, interpreter
from requirements import PYTHON, require
from test_generated_abi import facts, read
from vmm_arch_gen.abi.model import VerifiedAbi
from vmm_arch_gen.generate.generate import render_abi_module
from vmm_arch_gen.project import Project, project
from vmm_arch_gen.targets import TargetTable
from whp.wine import run, windows_path, windows_python

import headers

SEEDS = range(6)
TYPES = {
    **dict.fromkeys(("char", "signed char", "unsigned char"), 8),
    **dict.fromkeys(("short", "unsigned short"), 16),
    **dict.fromkeys(("int", "unsigned int", "enum colour"), 32),
    **dict.fromkeys(("long long", "unsigned long long"), 64),
    "_Bool": 1,
}
UNSIGNED = ("unsigned", "_Bool", "enum")
RULES = ("kvm_x86_64", "kvm_aarch64", "kvm_s390x", "whp_x86_64")
"""A target for each set of rules: System V's, Arm's, those in big-endian order, Microsoft's."""

Field = tuple[str, str, int]
"""Its name, its C type, its width."""


class Records:
    """A header with random records, most of whose members are bit-fields."""

    def __init__(self, seed: int) -> None:
        self._chance, self._numbers = random.Random(seed), count()
        self.records: dict[str, list[Field]] = {}
        """The fields of each by its C name, in the order in which they are declared."""
        self.text = "enum colour { RED, GREEN };\n"
        for number in range(30):
            kind = self._chance.choice(["struct", "struct", "union"])
            name = f"{kind} r{number}"
            packed = self._chance.choice(["", "", "__attribute__((packed))"])
            self.records[name] = []
            members = " ".join(self._members(self.records[name], 0))
            self.text += f"{name} {{ {members} }} {packed};\n"

    def _members(self, fields: list[Field], depth: int) -> Iterator[str]:
        chance = self._chance
        for _ in range(chance.randint(1, 7)):
            type = chance.choice(list(TYPES))
            name = f"f{next(self._numbers)}"
            match chance.choice(["bits"] * 8 + ["plain", "filler", "end", "nested"]):
                case "bits":
                    width = chance.randint(1, TYPES[type])
                    fields.append((name, type, width))
                    yield f"{type} {name} : {width};"
                case "plain" if type != "_Bool":  # of which other values than 0 and 1 are undefined
                    fields.append((name, type, TYPES[type]))
                    yield f"{type} {name};"
                case "filler":
                    yield f"{type} : {chance.randint(1, TYPES[type])};"
                case "end":
                    yield f"{type} : 0;"
                case "nested" if depth < 2:
                    inner = " ".join(self._members(fields, depth + 1))
                    yield f"{chance.choice(['struct', 'union'])} {{ {inner} }};"
        fields.append((f"l{depth}_{next(self._numbers)}", "unsigned int", 3))
        yield f"unsigned int {fields[-1][0]} : 3;"


def module_of(abi: VerifiedAbi) -> dict[str, Any]:
    module: dict[str, Any] = {"__name__": "bit_fields"}
    exec(render_abi_module(project().templates, abi), module)
    return module


def in_range(chance: random.Random, type: str, width: int) -> int:
    low = 0 if type.startswith(UNSIGNED) else -(1 << width - 1)
    return low + chance.getrandbits(width)


def assign(record: Any, field: Field, value: int) -> None:
    name, type, width = field
    plain_char = type == "char" and width == 8 and isinstance(getattr(record, name), bytes)
    setattr(record, name, bytes([value & 0xFF]) if plain_char else value)


def value(record: Any, field: Field) -> int:
    found = getattr(record, field[0])
    return int.from_bytes(found, "little", signed=True) if isinstance(found, bytes) else found


def statements(name: str, fields: list[Field], values: list[int]) -> str:
    """C that reads a record, says what is in it, assigns to its members and writes it."""
    said = "".join(f'fprintf(stderr, "%lld\\n", (long long)r.{field[0]});' for field in fields)
    assigned = "".join(
        f"r.{field[0]} = {'(long long)' + hex(number & (1 << 64) - 1)}ULL;"
        for field, number in zip(fields, values, strict=True)
    )
    return (
        f"{{ {name} r; if (fread(&r, sizeof r, 1, stdin) != 1) return 1; {said} {assigned}"
        " fwrite(&r, sizeof r, 1, stdout); }\n"
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_c_reads_and_writes_the_same(seed: int, table: TargetTable, tmp_path: Path) -> None:
    """The same garbage is read by both, then written to by both."""
    compiler = headers.host_compiler()
    random_records = Records(seed)
    abi = headers.prove(random_records.text, table.targets["kvm_x86_64"], table, tmp_path)
    module = module_of(abi)
    chance = random.Random(seed)
    garbage, expected, body = b"", b"", ""
    read: list[int] = []
    for name, fields in random_records.records.items():
        kind = module[name.partition(" ")[2]]
        before = chance.randbytes(abi.layouts[name].size)
        record = kind.from_buffer_copy(before)
        values = [in_range(chance, type, width) for _, type, width in fields]
        read += [value(record, field) for field in fields]
        for field, number in zip(fields, values, strict=True):
            assign(record, field, number)
        garbage += before
        expected += bytes(record)
        body += statements(name, fields, values)
    program = tmp_path / "program"
    source = f'#include <stdio.h>\n#include "test.h"\nint main(void) {{\n{body}return 0; }}\n'
    (tmp_path / "program.c").write_text(source)
    subprocess.run([compiler, "-w", "-o", program, tmp_path / "program.c"], check=True)
    done = subprocess.run([program], input=garbage, capture_output=True, check=True)
    assert list(map(int, done.stderr.split())) == [
        number - (1 << 64 if number >> 63 > 0 else 0) for number in read
    ]
    assert done.stdout == expected


@pytest.fixture(scope="module")
def many(table: TargetTable, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder of modules with random records by all rules, and what is to be compared with them."""
    folder = tmp_path_factory.mktemp("many")
    everything = {}
    for target in RULES:
        for seed in SEEDS:
            abi = headers.prove(Records(seed).text, table.targets[target], table, folder)
            name = f"many_{target}_{seed}"
            (folder / f"{name}.py").write_text(render_abi_module(project().templates, abi))
            everything[name] = facts(abi)
    return folder, json.dumps(everything)


@pytest.mark.parametrize(
    ("version", "rules"), [("this", ""), ("3.13", ""), ("3.14", ""), ("3.14", "ms")]
)
def test_every_python_has_them_in_the_same_places(
    version: str, rules: str, many: tuple[Path, str], checkout: Path
) -> None:
    try:
        python = PYTHON if version == "this" else str(interpreter(version))
    except Unavailable as reason:
        require(False, str(reason))
    folder, everything = many
    done = subprocess.run(
        [python, "-W", "error", str(checkout / "tests/support/abi_check.py"), *rules.split()],
        input=everything,
        env={"PYTHONPATH": f"{folder}:{checkout / 'generated'}", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(RULES) * len(SEEDS)


def test_windows_python_has_them_in_the_same_places(
    many: tuple[Path, str], table: TargetTable, paths: Project, checkout: Path
) -> None:
    """Whose ctypes places bit-fields by Microsoft's rules, in the random records and in ours."""
    folder, everything = many
    try:
        windows_python()
    except Unavailable as reason:
        require(False, str(reason))
    ours = {f"vmm_arch.abi.{name}": facts(read(name, paths)) for name in table.targets}
    known = folder / "facts.json"
    known.write_text(json.dumps(json.loads(everything) | ours))
    done = run(
        [windows_path(checkout / "tests/support/abi_check.py"), windows_path(known)],
        paths=[folder, checkout / "generated"],
    )
    assert done.returncode == 0, done.stdout
    assert len(done.stdout.splitlines()) == len(RULES) * len(SEEDS) + len(ours)
