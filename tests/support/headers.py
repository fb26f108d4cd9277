"""Headers made for a test, and what is read from them."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from requirements import require
from vmm_arch_gen.abi.model import Abi, VerifiedAbi
from vmm_arch_gen.extract.extract import extract
from vmm_arch_gen.extract.toolchain import Toolchain, find_toolchain
from vmm_arch_gen.extract.verify import verify
from vmm_arch_gen.targets import Target, TargetTable


def small_target(target: Target) -> Target:
    """A target whose only header is ``test.h``."""
    return dataclasses.replace(target, headers=("test.h",), shims=None, prelude="", proof=())


def toolchain(target: Target, table: TargetTable, folder: Path) -> Toolchain:
    return find_toolchain(target, table.package, include=(folder,))


def host_compiler() -> str:
    """A C compiler that makes programs for this machine."""
    found = shutil.which("gcc") or shutil.which("clang")
    require(found is not None, "no C compiler (Debian: apt-get install gcc)")
    assert found is not None
    return found


def read(text: str, target: Target, table: TargetTable, folder: Path) -> Abi:
    """What the generator reads from a header with this text."""
    (folder / "test.h").write_text(text)
    return extract(small_target(target), toolchain(target, table, folder))


def prove(text: str, target: Target, table: TargetTable, folder: Path) -> VerifiedAbi:
    """What the generator reads from a header with this text and the compiler agrees to."""
    abi = read(text, target, table, folder)
    return verify(abi, small_target(target), toolchain(target, table, folder))
