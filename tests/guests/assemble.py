"""Assembles a guest with the pinned toolchain: GNU syntax in, the bytes of its code out."""

from __future__ import annotations

import subprocess
import tempfile
from functools import cache
from pathlib import Path

from vmm_arch_gen.extract.toolchain import find_toolchain
from vmm_arch_gen.project import project
from vmm_arch_gen.targets import load_targets


class AssemblyError(Exception):
    """A guest cannot be assembled; the message is the assembler's or the linker's."""


@cache
def assemble(source: Path, origin: int) -> bytes:
    """Assemble one file, all of it in the section .text, for an address it will be loaded to.

    In 16-bit code the address is the offset in the code segment.
    """
    zig, *clang = _compiler()
    with tempfile.TemporaryDirectory(prefix="vmm-arch-") as folder:
        linkable, code = Path(folder, "guest.o"), Path(folder, "guest.bin")
        _run(zig, *clang, "-c", "-o", str(linkable), str(source))
        # Without the image's base the linker wants everything above 2 MiB. An entry point means
        # nothing to a flat binary; without one there would be a warning.
        layout = ["--image-base=0", f"-Ttext={origin:#x}", "--entry=0", "--oformat=binary"]
        linker = ["ld.lld", "-m", "elf_x86_64", "--fatal-warnings"]
        _run(zig, *linker, *layout, "-o", str(code), str(linkable))
        return code.read_bytes()


@cache
def _compiler() -> tuple[str, ...]:
    table = load_targets(project().targets_file)
    return find_toolchain(table.targets["kvm_x86_64"], table.package).command


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssemblyError(done.stderr)
