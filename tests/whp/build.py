"""Builds the stand-ins for WinHvPlatform and WinHvEmulation, for Linux and for Wine.

``libraries()`` returns what Linux's Python loads with ``ctypes.CDLL``, and ``windows_libraries()``
what Windows' Python loads with ``ctypes.WinDLL``; both are folders, and the libraries in them have
the names of :data:`PLATFORM` and :data:`EMULATION`::

    folder = libraries()
    platform = ctypes.CDLL(str(folder / PLATFORM))
    declare(platform, whp_x86_64.PROTOTYPES["winhvplatform.h"])

They are built with the pinned compiler when the sources have changed, which takes a second, and
kept outside the checkout. ``python tests/whp/build.py`` prints both folders.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # started as a script: modules are found from the tests' folder on
    _TESTS = Path(__file__).resolve().parents[1]
    sys.path[:1] = [str(_TESTS), str(_TESTS / "support")]

from vmm_arch_gen.extract.toolchain import Toolchain, find_toolchain
from vmm_arch_gen.fetch.kept import cache_folder, kept
from vmm_arch_gen.project import project
from vmm_arch_gen.targets import load_targets

PLATFORM, EMULATION = "WinHvPlatform.dll", "WinHvEmulation.dll"
"""The libraries' file names, on Linux too: who loads them asks for these names."""

SOURCES = Path(__file__).parent / "platform"
_PARTS = {
    PLATFORM: "partition older capabilities memory walk cpuid msrs exceptions registers interrupts xsave time counters"
    " instruction undo run builtins",
    EMULATION: "emulator arithmetic instruction builtins",
}

_OPTIONS = [
    *("-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror"),
    "-Wno-gnu-variable-sized-type-not-at-end",  # as Linux's headers mean to be used
    *("-ffreestanding", "-fno-builtin", "-fno-stack-protector", "-mno-stack-arg-probe"),
    "-fvisibility=hidden",
]


@dataclass(frozen=True)
class _Format:
    """How one of the two is built."""

    name: str
    target: str
    """Whose compiler it is, in the table of targets."""
    options: tuple[str, ...]
    link: tuple[str, ...]
    output: str


# No C library and no start files: what there is to link is what is compiled here. The ELF is
# compiled with Windows' layout of bit-fields and, by a header of its own, with its long.
_ELF = _Format(
    "elf",
    "kvm_x86_64",
    ("-fPIC", "-mms-bitfields", "-I", str(SOURCES / "elf")),
    ("ld.lld", "-m", "elf_x86_64", "-shared", "-Bsymbolic", "--fatal-warnings"),
    "-o{}",
)
_PE = _Format(
    "pe",
    "whp_x86_64",
    ("-Wno-dll-attribute-on-redeclaration",),  # the headers say nothing of exporting
    ("lld-link", "/dll", "/noentry", "/nodefaultlib", "/noimplib"),
    "/out:{}",
)


def libraries() -> Path:
    """The folder of the libraries for Linux."""
    return _built(_ELF)


def windows_libraries() -> Path:
    """The folder of the libraries for Windows."""
    return _built(_PE)


def _built(form: _Format) -> Path:
    key = hashlib.sha256(repr((form.options, form.link, _OPTIONS, _PARTS)).encode())
    key.update(_toolchain(form.target)[0].package.encode())
    for source in sorted(SOURCES.glob("**/*.[ch]")):
        key.update(source.read_bytes())
    where = cache_folder("whp")
    return kept(form.name, key.hexdigest()[:16], lambda made: _build(form, made), where)


def _toolchain(target: str) -> tuple[Toolchain, list[Path]]:
    """A target's compiler, and where the headers of Windows and Linux are."""
    table = load_targets(project().targets_file)
    toolchain = find_toolchain(table.targets[target], table.package)
    windows = find_toolchain(table.targets["whp_x86_64"], table.package).folders
    linux = find_toolchain(table.targets["kvm_x86_64"], table.package).folders
    assert toolchain.own_headers is not None, "the pinned compiler has headers of its own"
    shims = table.targets["whp_x86_64"].shims
    assert shims is not None
    return toolchain, [shims, toolchain.own_headers, *windows, *linux]


def _build(form: _Format, made: Path) -> None:
    toolchain, folders = _toolchain(form.target)
    search = [word for folder in folders for word in ("-isystem", str(folder))]
    with tempfile.TemporaryDirectory(prefix="vmm-arch-") as temporary:
        for library, parts in _PARTS.items():
            objects = []
            for part in parts.split():
                linkable = Path(temporary, f"{part}.o")
                if not linkable.exists():
                    output = ["-c", "-o", str(linkable), str(SOURCES / f"{part}.c")]
                    _run(
                        *toolchain.command, *_OPTIONS, *form.options, "-nostdinc", *search, *output
                    )
                objects.append(str(linkable))
            zig = toolchain.command[0]
            _run(zig, *form.link, form.output.format(made / library), *objects)


def build_launcher(made: Path) -> None:
    """Make a ``python.exe`` that calls ``Py_Main`` of a ``python311.dll`` beside it."""
    toolchain, _ = _toolchain(_PE.target)
    zig = toolchain.command[0]
    with tempfile.TemporaryDirectory(prefix="vmm-arch-") as temporary:
        linkable = Path(temporary, "python.o")
        source = str(SOURCES.parent / "launcher" / "python.c")
        _run(*toolchain.command, *_OPTIONS, "-c", "-o", str(linkable), source)
        imports = []
        for library, names in _IMPORTS.items():
            definition, archive = Path(temporary, library + ".def"), Path(
                temporary, library + ".lib"
            )
            definition.write_text("\n".join([f"LIBRARY {library}", "EXPORTS", *names, ""]))
            imports.append(str(archive))
            machine = ["-m", "i386:x86-64"]
            _run(zig, "dlltool", *machine, "-d", str(definition), "-l", str(archive))
        kind = ["/entry:start", "/subsystem:console", "/nodefaultlib"]
        output = f"/out:{made / 'python.exe'}"
        _run(zig, "lld-link", *kind, output, str(linkable), *imports)


_IMPORTS = {
    "python311.dll": ["Py_Main"],
    "ucrtbase.dll": ["_configure_wide_argv", "__p___argc", "__p___wargv"],
    "kernel32.dll": ["ExitProcess"],
}


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    print(libraries())
    print(windows_libraries())
