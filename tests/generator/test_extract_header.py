"""``vmm-arch-gen extract --header``: from any header to a module, as a new user would do it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from test_outputs import snapshot

HEADER = """\
#ifndef INK_H
#define INK_H
#include <linux/types.h>
#include <linux/ioctl.h>
#define INK_COLOURS 7
#define INK_WELL(n) __attribute__((deprecated))
struct ink { __u32 colour; __u64 amount; };
#define INK_FILL _IOW('i', 1, struct ink)
static inline int ink_is_red(struct ink *ink) { return ink->colour == 1; }
#endif
"""


class Folder:
    """A folder with a user's headers, and the command run in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.environment = os.environ | {"COLUMNS": "80"}

    def write(self, name: str, text: str = HEADER) -> None:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def extract(self, *arguments: str) -> tuple[int, str]:
        """Exit status and what was said."""
        command = [sys.executable, "-m", "vmm_arch_gen", "extract", *arguments]
        done = subprocess.run(
            command,
            cwd=self.path,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stdout, done.stdout
        return done.returncode, done.stdout

    def python(self, code: str, *, alone: bool = False, below: str = ".") -> str:
        """What a program prints; ``alone``, it has the standard library and this folder only."""
        if alone:
            code = f"import sys; sys.path.insert(0, {str(self.path / below)!r}); {code}"
        done = subprocess.run(
            [sys.executable, *(["-I", "-S"] if alone else []), "-c", code],
            cwd=self.path / below,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


USE = "import ink_x86_64 as abi; print(hex(abi.INK_FILL), abi.INK_COLOURS, abi.ink(colour=3))"
USED = "0x40106901 7 ink(colour=3, amount=0)"
X86_64 = ("--only-cpu", "x86_64")


def test_one_command_from_a_header_to_a_module(folder: Folder) -> None:
    folder.write("ink.h")
    status, said = folder.extract("--header", "ink.h", *X86_64)
    assert status == 0, said
    assert "ink_x86_64: " in said
    assert " proven in " in said
    assert folder.python(USE) == USED


@pytest.mark.parametrize("output", [".", "a folder/pen", "pen"])
@pytest.mark.parametrize("standalone", [[], ["--standalone"]])
def test_the_command_that_is_shown_imports_it(
    output: str, standalone: list[str], folder: Folder
) -> None:
    folder.path = folder.path / "here"
    folder.write("ink.h")
    arguments = ["--header", "ink.h", *X86_64, "--output", output, *standalone]
    _, said = folder.extract(*arguments)
    command = said.rpartition("\ntry it: ")[2].replace("python3", shlex.quote(sys.executable))
    done = subprocess.run(command, shell=True, cwd=folder.path, env=folder.environment, check=False)
    assert done.returncode == 0, command
    assert "try it" not in folder.extract(*arguments, "--check")[1]


def test_what_was_left_out_is_said_by_count_and_reason(folder: Folder) -> None:
    folder.write("ink.h")
    _, said = folder.extract("--header", "ink.h", *X86_64)
    assert "\n  1 macro left out: is empty (INK_H)\n" in said
    assert "\n  1 function left out: a function with a body (ink_is_red)\n" in said
    assert "left out of headers that these include; --verbose lists all" in said
    assert "asm-generic" not in said
    _, said = folder.extract("--header", "ink.h", *X86_64, "--verbose")
    assert "\n  ink.h: macro INK_H: is empty\n" in said
    assert "\n  asm-generic/types.h: macro " in said
    left_out = [line for line in said.splitlines() if line.startswith("  ")]
    omitted = (folder.path / "ink_x86_64.abi").read_text().split("\nomitted ")[1:]
    assert len(left_out) == sum(len(line.partition(" in ")[0].split()) - 1 for line in omitted)
    assert folder.extract("--header", "ink.h", *X86_64, "-q") == (0, "")


def test_a_header_of_the_package(folder: Folder) -> None:
    headers = ["--header", "linux/ioctl.h", "--header", "linux/userfaultfd.h"]
    status, said = folder.extract(*headers, *X86_64, "--only-cpu", "s390x", "--output", "out")
    assert status == 0, said
    code = (
        "import userfaultfd_x86_64 as x86, userfaultfd_s390x as s390;"
        "print(hex(x86.UFFDIO_API), hex(s390.UFFDIO_API));"
        "print(bytes(x86.uffdio_api(api=1))[:8].hex(), bytes(s390.uffdio_api(api=1))[:8].hex())"
    )
    assert folder.python(code, below="out").splitlines() == [
        "0xc018aa3f 0xc018aa3f",
        "0100000000000000 0000000000000001",
    ]


def test_the_cpu_is_this_machines_if_none_is_named(folder: Folder) -> None:
    folder.write("ink.h")
    assert folder.extract("--header", "ink.h")[0] == 0
    cpu = {"AMD64": "x86_64", "arm64": "aarch64"}.get(os.uname().machine, os.uname().machine)
    assert (folder.path / f"ink_{cpu}.py").exists()


def test_a_module_that_needs_nothing_but_python(folder: Folder) -> None:
    folder.write("ink.h", HEADER + "int ink_fill(struct ink *ink);\n")
    arguments = ["--header", "ink.h", *X86_64, "--standalone", "--output", "well"]
    status, said = folder.extract(*arguments)
    assert status == 0, said
    assert folder.python(USE.replace("import", "from well import"), alone=True) == USED
    code = "import well, well.ink_x86_64 as m; print(well.declare(object(), m.PROTOTYPES['ink.h']))"
    assert folder.python(code, alone=True) == "frozenset({'ink_fill'})"
    assert folder.extract(*arguments, "--check", "-q") == (0, "")
    command = [sys.executable, "-m", "mypy", "--strict", "-p", "well", "--cache-dir", "cache"]
    done = subprocess.run(command, cwd=folder.path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    for module in (folder.path / "well").glob("*.py"):
        lines = map(str.strip, module.read_text().splitlines())
        assert not [line for line in lines if line.startswith(("from vmm_arch", "import vmm_arch"))]


def test_a_path_to_a_header_with_others_beside_it_and_elsewhere(folder: Folder) -> None:
    folder.write("deep/er/ink.h", '#include "pen.h"\n#include <paper.h>\n' + HEADER)
    folder.write("deep/er/pen.h", "#define PEN_WIDTH 2\n")
    folder.write("other/paper.h", "#define PAPER_SIZE 4\n")
    arguments = ["./deep/er/ink.h", "--include", "other", *X86_64]
    status, said = folder.extract("--header", *arguments)
    assert status == 0, said
    code = "import ink_x86_64 as abi; print(abi.PEN_WIDTH, abi.PAPER_SIZE, abi.INK_COLOURS)"
    assert folder.python(code) == "2 4 7"
    text = (folder.path / "ink_x86_64.abi").read_text()
    assert "constant PAPER_SIZE = 4 in paper.h" in text
    assert "constant INK_COLOURS = 7 in ink.h" in text
    assert str(folder.path) not in text
    before = snapshot(folder.path)
    absolute = str(folder.path / "deep/er/ink.h")
    assert folder.extract("--header", absolute, *arguments[1:])[0] == 0
    assert snapshot(folder.path) == before  # the same bytes, whatever the way to the header


def test_an_own_header_is_found_before_the_packages(folder: Folder) -> None:
    folder.write("include/linux/kvm.h", "#define KVM_API_VERSION 99\nstruct kvm_own { int x; };\n")
    arguments = ["--header", "linux/kvm.h", *X86_64, "--include", "include"]
    status, said = folder.extract(*arguments)
    assert status == 0, said
    code = "import kvm_x86_64 as abi; print(abi.KVM_API_VERSION, abi.kvm_own(x=1))"
    assert folder.python(code) == "99 kvm_own(x=1)"
    assert "(own headers and Linux 7." in said


def test_defines_are_given_to_reading_and_to_proof(folder: Folder) -> None:
    folder.write(
        "page.h",
        "#ifdef __TOOLS__\nstruct page { char data[PAGE_SIZE]; };\n#endif\n"
        "#define HALF (PAGE_SIZE / 2)\n",
    )
    arguments = ["--header", "page.h", *X86_64, "--define", "PAGE_SIZE=(1 << 12)"]
    status, said = folder.extract(*arguments, "--define", "__TOOLS__")
    assert status == 0, said
    code = "import ctypes, page_x86_64 as abi; print(ctypes.sizeof(abi.page), abi.HALF)"
    assert folder.python(code) == "4096 2048"
    text = (folder.path / "page_x86_64.abi").read_text()
    assert ", with PAGE_SIZE=(1 << 12), __TOOLS__, sha256 " in text


def test_shims_are_read_and_not_proven_with(folder: Folder) -> None:
    folder.write("ink.h", "#include <odd.h>\nstruct ink { odd_t colour; };\n")
    folder.write("odd.h", "typedef __typeof__(1) odd_t;\n")
    folder.write("simple/odd.h", "typedef int odd_t;\n")
    arguments = ["--header", "ink.h", *X86_64]
    assert folder.extract(*arguments)[0] == 2
    status, said = folder.extract(*arguments, "--shims", "simple")
    assert status == 0, said
    folder.write("simple/odd.h", "typedef short odd_t;\n")
    status, said = folder.extract(*arguments, "--shims", "simple")
    assert status == 2
    assert "the size of struct ink is 2 as read from the header, but 4 for the compiler" in said


def test_another_system_and_another_name(folder: Folder) -> None:
    folder.write("ink-well.h", "struct ink { long amount; };\n")
    arguments = ["--header", "ink-well.h", *X86_64]
    assert folder.extract(*arguments, "--system", "windows")[0] == 0
    code = "import ctypes, ink_well_x86_64 as abi; print(ctypes.sizeof(abi.ink))"
    assert folder.python(code) == "4"
    assert folder.extract(*arguments, "--name", "pen")[0] == 0
    assert folder.python(code.replace("ink_well", "pen")) == "8"


def test_check_says_whether_the_header_has_changed(folder: Folder) -> None:
    folder.write("ink.h")
    arguments = ["--header", "ink.h", *X86_64, "--output", "out"]
    assert folder.extract(*arguments)[0] == 0
    assert folder.extract(*arguments, "--check", "-q") == (0, "")
    folder.write("ink.h", HEADER.replace("INK_COLOURS 7", "INK_COLOURS 8"))
    before = snapshot(folder.path)
    status, said = folder.extract(*arguments, "--check")
    assert status == 1
    assert "-INK_COLOURS = 7\n+INK_COLOURS = 8\n" in said
    assert f"run: vmm-arch-gen extract {' '.join(arguments)}\n" in said
    assert snapshot(folder.path) == before


def test_a_file_that_was_not_generated_is_kept(folder: Folder) -> None:
    folder.write("ink.h")
    folder.write("ink_x86_64.py", "mine = 1\n")
    folder.write("__init__.py", "")
    before = snapshot(folder.path)
    status, said = folder.extract("--header", "ink.h", *X86_64)
    assert status == 2
    assert "error: ink_x86_64.py: a file that was not generated has this name; move it" in said
    assert snapshot(folder.path) == before


@pytest.mark.parametrize(
    ("arguments", "complaints"),
    [
        (["--header", "inc.h"], ["inc.h: this header is in none of the include folders ("]),
        (["--header", "kvm.h"], ["; did you mean asm/kvm.h or linux/kvm.h? name the folder"]),
        (["--header", "linux/userfaultd.h"], ["; did you mean linux/userfaultfd.h"]),
        (["--header", "./ink"], ["--header ./ink: there is no such file; did you mean ink.h? "]),
        (["--header", "/no/ink.h"], ["--header /no/ink.h: there is no such file; "]),
        (["--header", "sub"], ["--header sub: is a folder; name a header in it"]),
        (["--header", "an ink.h"], ["--header an ink.h: a header's name may have no blank"]),
        (["--header", "9.h"], ["--name: '9' is not the name of a Python module; "]),
        (["--header", "ink.h", "--name", "a-b"], ["--name: 'a-b' is not the name of a Python"]),
        (["--header", "ink.h", "--only", "kvm_x86_64"], ["--only: the headers of a target are in its table; leave it out"]),
        (["--only", "kvm_x86_64", "--name", "x", "--standalone"], ["--name: says nothing without --header; name", "--standalone: says nothing without"]),
        (["--header", "ink.h", "--only-cpu", "vax"], ["--only-cpu vax: there is no CPU 'vax' of 'linux': the CPUs are x86_64, "]),
        (["--header", "ink.h", "--system", "vms"], ["--system vms --only-cpu x86_64: there is no CPU 'x86_64' of 'vms': the systems are "]),
        (["--header", "ink.h", "--include", "nowhere", "--include", "ink.h"], ["--include nowhere: there is no such folder; ", "--include ink.h: this is not a folder; "]),
        (["--header", "ink.h", "--define", "1=2", "--define", "A\nB"], ["--define: '1=2' does not define a macro: say NAME", "--define: 'A\\nB' does not"]),
        (["--header", "ink.h", "--shims", "nowhere"], ["--shims nowhere: there is no such folder; name an existing folder, or one of the package's: "]),
        (["--header", "no.h", "--name", "-", "--shims", "no", "--include", "no"], ["--name: ", "--shims no: ", "--include no: "]),
        (["--header", "ink.h", "--cc", "cc", "--only-cpu", "s390x"], ["--cc: one compiler command compiles for one target; name that target with --only TARGET, with --header its CPU"]),
        (["--header", "ink.h", "--output", "ink.h/out"], ["ink.h/out"]),
        (["--header", "empty.h"], ["empty.h: declares nothing that could become a fact"]),
        (["--header", "guard.h"], ["guard.h: declares nothing that could become a fact: 1 macro left out: is empty (GUARD_H)"]),
        (["--header", "self.h"], ["self.h:1: this #include never ends: the header includes itself"]),
        (["--header", "error.h"], ["error.h:2: the compiler says: say which; correct the header"]),
        (["--header", "syntax.h"], ["syntax.h:2:1: pycparser cannot read this: "]),
        (["--header", "lacks.h"], ["lacks.h:2: includes sub/gone.h, which is in none of the include folders ("]),
    ],
)  # fmt: skip
def test_bad_input_is_named_and_writes_nothing(
    arguments: list[str], complaints: list[str], folder: Folder
) -> None:
    folder.write("ink.h")
    folder.write("an ink.h")
    folder.write("9.h")
    folder.write("sub/other.h")
    folder.write("empty.h", "")
    folder.write("guard.h", "#ifndef GUARD_H\n#define GUARD_H\n#endif\n")
    folder.write("self.h", '#include "self.h"\nint x;\n')
    folder.write("error.h", "\n#error say which\n")
    folder.write("syntax.h", "struct a {\nint int;\n};\n")
    folder.write("lacks.h", '\n#include "sub/gone.h"\n')
    before = snapshot(folder.path)
    cpu = [] if "--only" in arguments else list(X86_64)
    if "vax" in arguments:
        cpu = []
    status, said = folder.extract(*arguments, *cpu)
    assert status == 2, said
    for complaint in complaints:
        assert complaint in said
    assert snapshot(folder.path) == before
