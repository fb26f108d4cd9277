"""Headers changed at random: each becomes a module that can be imported, or is refused in words."""

from __future__ import annotations

import random
import re
import sys
import types
from pathlib import Path

import pytest
from vmm_arch_gen.diagnostics import InputError
from vmm_arch_gen.extract.extract import extract_and_prove
from vmm_arch_gen.own_headers import OwnHeaders, own_files, own_targets
from vmm_arch_gen.project import Project
from vmm_arch_gen.targets import TargetTable

HEADER = """\
#ifndef INK_H
#define INK_H
#include <linux/types.h>
#include <linux/ioctl.h>
#define INK_COLOURS 7
#define INK_NAME "ink"
#define INK_MASK(n) (~0ULL << (n))
#define INK_ALL (INK_COLOURS * 2 + sizeof(struct ink))
enum ink_kind { INK_RED = 1, INK_BLUE, INK_GREEN = 0x10, };
typedef enum { INK_DRY, INK_WET } ink_state;
struct ink {
    __u32 colour : 4, kind : 3, : 0;
    __u64 amount;
    union { char name[16]; struct { __u8 a, b; } parts; };
    ink_state state;
    struct ink *next;
    int (*filled)(struct ink *ink, const char *why);
} __attribute__((packed, aligned(8)));
typedef struct ink ink_t;
struct well { __u16 count; ink_t inks[]; };
#define INK_FILL _IOW('i', 1, struct ink)
#pragma pack(push, 1)
struct tight { char c; long l; };
#pragma pack(pop)
_Static_assert(sizeof(struct tight) == 9, "tight");
static inline int ink_is_red(struct ink *ink) { return ink->colour == INK_RED; }
int ink_fill(struct ink *ink, ...);
#endif
"""

TOKEN = re.compile(r'\s+|\w+|"[^"\n]*"|.')
NUMBERS = [
    "0",
    "1",
    "7",
    "-1",
    "0x80000000",
    "0xffffffffffffffff",
    "1ULL",
    "64",
    "3",
    "010",
    "1e3",
    "'a'",
    "(1<<31)",
    "sizeof(int)",
]
TYPES = [
    "int char unsigned long",
    "long long",
    "short",
    "void",
    "__u8",
    "__u64",
    "float",
    "double",
    "struct ink",
    "struct well",
    "ink_t",
    "enum ink_kind",
    "_Bool",
    "long double",
    "__int128",
    "struct gone",
    "volatile char",
    "unsigned int *",
    "void (*)(int)",
    "struct { int q; }",
    "_Float16",
    "int __attribute__((aligned(16)))",
]
ODD = [
    *"(){}[];,#\"'\\\n*.:?<>/%=",
    *[
        "...",
        "##",
        "#define",
        "#include",
        "#if",
        "#endif",
        "#error",
        "//",
        "/*",
        "*/",
        "??=",
        "[[",
        "<<",
        "sizeof",
        "_IO(",
        "_IOW(",
        "packed",
    ],
    *[
        "typedef",
        "struct",
        "union",
        "enum",
        "const",
        "volatile",
        "_Atomic",
        "class",
        "None",
        "self",
        "1<<64",
        "/0",
        "9999999999",
    ],
    *("\0", "\xff", "__attribute__((", '__asm__("x")', "_Generic(", 'L"x"', "'\\xff'", "(" * 300),
    '#include "ink.h"\n',
]
SEEDS = range(60)


def mutated(chance: random.Random) -> str:
    """The header with one to three tokens changed, mostly for others of their kind."""
    tokens = TOKEN.findall(HEADER)
    for _ in range(chance.choice([1, 1, 1, 2, 2, 3])):
        at = chance.randrange(len(tokens))
        token = tokens[at]
        if chance.random() < 0.25:
            tokens[at : at + chance.randrange(2)] = [chance.choice(["", *ODD])]
        elif token[0].isdigit():
            tokens[at] = chance.choice(NUMBERS)
        elif re.fullmatch(r"int|char|long|const|__u\d+|ink_t|ink_state", token):
            tokens[at] = chance.choice(TYPES)
        else:
            alike = [t for t in tokens if t.isidentifier() == token.isidentifier() and t.strip()]
            tokens[at] = chance.choice(alike)
    return "".join(tokens)


def test_a_header_changed_at_random_is_a_module_or_is_refused(
    table: TargetTable, paths: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    modules = 0
    for seed in SEEDS:
        text = mutated(random.Random(seed))
        (tmp_path / "ink.h").write_bytes(text.encode("latin-1"))
        request = OwnHeaders(("ink.h",), "linux", ("x86_64",))
        (target,) = own_targets(request, table, paths.headers / "shims")
        try:
            facts, _ = extract_and_prove(target, table.package, (), None, "counted")
            files = own_files({target.name: facts}, paths, tmp_path, standalone=False)
        except InputError as refused:
            for problem in refused.problems:
                assert problem.where, f"seed {seed}: {text}"
                assert problem.remedy, f"seed {seed}: {text}"
        else:
            (code,) = (held for name, held in files.items() if name.suffix == ".py")
            module = types.ModuleType(target.name)
            monkeypatch.setitem(sys.modules, target.name, module)
            exec(code, vars(module))
            modules += 1
    assert modules >= len(SEEDS) // 10, "hardly any was read: they are changed too much to try much"
