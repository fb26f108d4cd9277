"""Assembles a guest with the pinned toolchain: GNU syntax in, the bytes of its code out.

``python tests/guests/assemble.py`` writes the code of all scenarios' guests to where the self-test
has it.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from vmm_arch_gen.extract.toolchain import find_toolchain
from vmm_arch_gen.project import project
from vmm_arch_gen.targets import load_targets

GUESTS = Path(__file__).parent
TEMPLATE = "vmm_arch/selftest/x86_64/code.py"
"""The file of the code, below the templates."""


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


def sources() -> dict[str, Path]:
    """The guests of scenarios by their names."""
    return {source.stem: source for source in sorted(GUESTS.glob("*.S"))}


def code_module(code: Mapping[str, bytes]) -> str:
    """The text of the module that has the guests' code."""
    lines = [
        '"""The code of the scenarios\' guests, assembled from tests/guests: do not edit."""',
        "",
        "CODE = {",
    ]
    for name, data in code.items():
        text = [data[at : at + 44].hex() for at in range(0, len(data), 44)]
        if len(text) == 1:
            lines.append(f'    "{name}": "{text[0]}",')
        else:
            lines += [f'    "{name}": (', *(f'        "{part}"' for part in text), "    ),"]
    return "\n".join([*lines, "}", '"""In hexadecimal, by the scenario\'s name."""', ""])


def origin(name: str) -> int:
    """What the code of a scenario's guest is linked to."""
    from vmm_arch.selftest.play import Suite
    from vmm_arch.selftest.x86_64.harness import Machine

    machine = Suite("x86_64").scenario(name).MACHINE
    assert isinstance(machine, Machine)
    return machine.origin


def main() -> None:
    code = {name: assemble(source, origin(name)) for name, source in sources().items()}
    file = project().templates / TEMPLATE
    file.write_text(code_module(code))
    print(f"{len(code)} guests written to {file}; now: vmm-arch-gen generate")


if __name__ == "__main__":
    main()
