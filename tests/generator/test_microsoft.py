"""Microsoft's own headers: names of mixed case, annotations, packing and numbers as they write them.

The SDK is not at hand: ``tests/support/sdk`` is a folder like it, with text of our own.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from vmm_arch_gen.diagnostics import InputError
from vmm_arch_gen.extract.extract import extract, extract_and_prove
from vmm_arch_gen.extract.verify import verify
from vmm_arch_gen.targets import TargetTable

import headers

SDK = Path(__file__).parents[1] / "support/sdk"


@pytest.mark.parametrize(("cpu", "machine"), [("x86_64", "0x8664"), ("aarch64", "0xaa64")])
def test_headers_as_an_sdk_has_them(cpu: str, machine: str, table: TargetTable) -> None:
    include = [SDK / "um", SDK / "shared", SDK / "ucrt"]
    text, _ = extract_and_prove(table.targets[f"whp_{cpu}"], table.package, include, None)
    lines = text.decode().splitlines()
    found = {
        line.replace(" in WinHvPlatformDefs.h", "").replace(" in WinHvPlatform.h", "")
        for line in lines
    }
    assert found >= {
        "header WinHvPlatform.h",
        "header WinHvPlatformDefs.h",
        "constant ODD_ALL = 0xffffffffffffffff",
        f"constant ODD_CPU = {machine}",
        "constant ODD_LOW = 0xfffffffffffff000",
        "constant ODD_ONE = 1",
        "function OddGetProperty is HRESULT(ODD_HANDLE Handle, ODD_KIND Kind, void* Buffer, UINT32 BufferSize, UINT32* WrittenSize)",
        "function OddOpen is HANDLE(void const* Name, UINT32 Size)",
        "function OddReady is BOOL()",
        "function OddReset is HRESULT(ODD_HANDLE Handle)",
        "struct ODD_BYTES is 5 bytes aligned 1 pack(1)",
        "struct ODD_PAGE is 4096 bytes aligned 4096 aligned(4096)",
        "  @ 0 Line unsigned long long aligned(64)",
        "union ODD_UINT128 is 16 bytes aligned 16 aligned(16)",
        "struct _ODD_PACKED is 28 bytes aligned 4 pack(4)",
        "typedef ODD_CALLBACK is HRESULT(void* Context, ODD_BITS* Bits)*",
    }  # fmt: skip
    shims = {line for line in lines if line.endswith(" in shim:windows.h")}
    assert "typedef UINT64 is unsigned long long in shim:windows.h" in shims
    assert not any("LUID" in line for line in shims)  # which these headers neither use nor have
    assert not any("vmm-arch-" in line for line in lines)


@pytest.mark.parametrize("header", ["MinWinDef.h", "minwindef.h", "MINWINDEF.H"])
def test_a_shim_is_found_by_every_spelling(header: str, table: TargetTable, tmp_path: Path) -> None:
    (tmp_path / "MinWinDef.h").write_text("#error the shim is meant\n")
    target = table.targets["whp_x86_64"]
    (tmp_path / "test.h").write_text(f"#include <{header}>\ntypedef UINT64 number;\n")
    small = replace(headers.small_target(target), shims=target.shims)
    abi = extract(small, headers.toolchain(small, table, tmp_path))
    assert "number" in abi.typedefs
    assert abi.headers == ("test.h",)


def test_elsewhere_the_case_of_a_name_counts(table: TargetTable, tmp_path: Path) -> None:
    (tmp_path / "Other.h").write_text("")
    with pytest.raises(InputError, match=r"test.h:1: includes other.h, which is in none"):
        headers.read("#include <other.h>\n", table.targets["kvm_x86_64"], table, tmp_path)
    abi = headers.read("#include <other.h>\n", table.targets["whp_x86_64"], table, tmp_path)
    assert abi.headers == ("Other.h", "test.h")


@pytest.mark.parametrize(
    "text",
    [
        "_Must_inspect_result_ int f(_In_reads_bytes_(size * (1 + 2)) const void *a, _Out_opt_ int *b, int size);",
        "int f(_When_(size != 0, _Out_writes_bytes_to_(size, *b)) void *a, int *b, int size) _Success_(return == 0);",
        "typedef struct { _Field_size_(count) int *a; int count; } s;",
    ],
)
def test_annotations_say_nothing(text: str, table: TargetTable, tmp_path: Path) -> None:
    abi = headers.read(text + "\n", table.targets["whp_x86_64"], table, tmp_path)
    assert abi.omissions == ()


@pytest.mark.parametrize(
    ("number", "value"),
    [("0xFFui8", 255), ("~1ui16 & 0xFF", 254), ("1ui32 << 31", 1 << 31), ("~0ui64", (1 << 64) - 1), ("-1i64", -1), ("7i32", 7)],
)  # fmt: skip
def test_numbers(number: str, value: int, table: TargetTable, tmp_path: Path) -> None:
    (tmp_path / "test.h").write_text(f"#define N ({number})\n")
    small = headers.small_target(table.targets["whp_x86_64"])
    small = replace(small, proof=("-fms-extensions",))
    toolchain = headers.toolchain(small, table, tmp_path)
    abi = verify(extract(small, toolchain), small, toolchain)
    assert [constant.value for constant in abi.constants] == [value]
