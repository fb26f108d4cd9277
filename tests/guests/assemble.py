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
LINKER = {"x86_64": "elf_x86_64", "aarch64": "aarch64linux", "riscv64": "elf64lriscv"}
"""What the linker calls each CPU's format; the compiler is that of KVM's target."""
CPUS = sorted(path.name for path in GUESTS.iterdir() if path.name in LINKER)
"""The CPUs with guests, each with a folder of its name."""


class AssemblyError(Exception):
    """A guest cannot be assembled; the message is the assembler's or the linker's."""


@cache
def assemble(source: Path, origin: int, cpu: str = "x86_64") -> bytes:
    """Assemble one file, all of it in the section .text, for an address it will be loaded to.

    In 16-bit code the address is the offset in the code segment.
    """
    zig, *clang = _compiler(cpu)
    with tempfile.TemporaryDirectory(prefix="vmm-arch-") as folder:
        linkable, code = Path(folder, "guest.o"), Path(folder, "guest.bin")
        _run(zig, *clang, f"-I{source.parent}", "-c", "-o", str(linkable), str(source))
        # Without the image's base the linker wants everything above 2 MiB. An entry point means
        # nothing to a flat binary; without one there would be a warning.
        layout = ["--image-base=0", f"-Ttext={origin:#x}", "--entry=0", "--oformat=binary"]
        linker = ["ld.lld", "-m", LINKER[cpu], "--fatal-warnings"]
        _run(zig, *linker, *layout, "-o", str(code), str(linkable))
        return code.read_bytes()


@cache
def _compiler(cpu: str) -> tuple[str, ...]:
    table = load_targets(project().targets_file)
    return find_toolchain(table.targets[f"kvm_{cpu}"], table.package).command


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssemblyError(done.stderr)


def sources(cpu: str) -> dict[str, Path]:
    """The guests of a CPU's scenarios by their names."""
    return {source.stem: source for source in sorted((GUESTS / cpu).glob("*.S"))}


def code_file(cpu: str) -> Path:
    """The template with the code of a CPU's guests."""
    return project().templates / f"vmm_arch/selftest/{cpu}/code.py"


def code_module(cpu: str, code: Mapping[str, bytes]) -> str:
    """The text of that file."""
    lines = [
        f'"""The code of the scenarios\' guests, assembled from tests/guests/{cpu}: do not edit."""',
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


def assembled(cpu: str) -> dict[str, bytes]:
    """The code of a CPU's guests by their names, each linked to where its machine loads it."""
    from vmm_arch.selftest.play import Suite

    suite = Suite(cpu)
    return {
        name: assemble(source, suite.scenario(name).MACHINE.origin, cpu)
        for name, source in sources(cpu).items()
    }


def main() -> None:
    for cpu in CPUS:
        code, file = assembled(cpu), code_file(cpu)
        file.write_text(code_module(cpu, code))
        print(f"{len(code)} guests written to {file}; now: vmm-arch-gen generate")


if __name__ == "__main__":
    main()
