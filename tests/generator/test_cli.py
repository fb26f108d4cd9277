"""The command as people use it: in a copy of the project, run as a program of its own."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from requirements import require
from test_outputs import snapshot
from vmm_arch_gen.targets import TargetTable

RISCV = ["--only", "kvm_riscv64"]


class Copy:
    """A copy of the project that a test may damage, and its command."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def start(
        self,
        *arguments: str,
        before: Callable[[], None] | None = None,
        environment: dict[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        package = {"PYTHONPATH": str(self.root / "generator"), "COLUMNS": "80"}
        return subprocess.Popen(
            [sys.executable, "-m", "vmm_arch_gen", *arguments],
            cwd=self.root,
            env=os.environ | package | (environment or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=before,
        )

    def run(
        self,
        *arguments: str,
        before: Callable[[], None] | None = None,
        environment: dict[str, str] | None = None,
    ) -> tuple[int, str, str]:
        """Exit status, standard output and standard error."""
        process = self.start(*arguments, before=before, environment=environment)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err


@pytest.fixture
def copy(checkout: Path, tmp_path: Path) -> Copy:
    root = tmp_path / "project"
    for folder in ("generator", "templates", "headers", "generated"):
        shutil.copytree(
            checkout / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    return Copy(root)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_the_checkout_is_what_its_headers_and_templates_say(copy: Copy) -> None:
    """The check that regenerates everything and compares."""
    status, out, err = copy.run("extract", "--check", "-q")
    assert (status, out) == (0, "")
    # An archive that has dropped a pinned package says nothing against the facts.
    assert all(line.startswith("warning: ") for line in err.splitlines())
    assert copy.run("generate", "--check", "-q") == (0, "", "")


def test_check_fails_on_an_edited_template(copy: Copy, table: TargetTable) -> None:
    edit(copy.root / "templates/vmm_arch/abi/target.py.j2", "The raw ABI of", "The edited ABI of")
    before = snapshot(copy.root / "generated")
    status, out, err = copy.run("generate", "--check", *RISCV)
    assert status == 1
    assert '-"""The raw ABI of kvm_riscv64' in out
    assert '+"""The edited ABI of kvm_riscv64' in out
    count = 1 + len(table.always)
    assert err.endswith(
        f"{count} files would be written differently;"
        " run: vmm-arch-gen generate --only kvm_riscv64\n"
    )
    assert snapshot(copy.root / "generated") == before


def test_check_shows_what_only_differs_in_line_ends(copy: Copy) -> None:
    module = copy.root / "generated/vmm_arch/abi/__init__.py"
    module.write_bytes(module.read_bytes().replace(b"\n", b"\r\n"))
    (copy.root / "generated/vmm_arch/__init__.py").write_bytes(b"no end")
    status, out, err = copy.run("generate", "--check", *RISCV)
    assert status == 1
    assert r"-from __future__ import annotations\r" in out
    assert r"-no end\ No newline at end of file" in out
    assert f"differs: {module}\n" in err


def test_the_command_that_mends_it_is_the_one_that_was_given(copy: Copy) -> None:
    status, _, err = copy.run("generate", "--check", *RISCV, "--output", "else where")
    assert status == 1
    mend = "vmm-arch-gen generate --only kvm_riscv64 --output 'else where'\n"
    assert err.endswith(mend)


def test_what_a_killed_run_left_is_removed(copy: Copy) -> None:
    left = copy.root / "generated/vmm_arch/.x.py.abc.vmm-arch-new"
    left.write_bytes(b"")
    (copy.root / "generated/vmm_arch/.DS_Store").write_bytes(b"not ours")
    assert copy.run("generate", "-q") == (0, "", "")
    assert not left.exists()
    assert (copy.root / "generated/vmm_arch/.DS_Store").exists()


def test_colours_only_where_they_are_wanted(copy: Copy) -> None:
    assert "\x1b[" not in copy.run("generate", "--only", "vax")[2]


def test_a_missing_library_is_named(copy: Copy) -> None:
    (copy.root / "generator" / "pycparser.py").write_text(
        "raise ModuleNotFoundError(name='pycparser')"
    )
    status, _, err = copy.run("extract", *RISCV)
    assert status == 2
    assert "pycparser: this package is not installed, and the command needs it; pip install" in err


def test_check_fails_on_an_edited_output_and_generating_mends_it(copy: Copy) -> None:
    module = copy.root / "generated/vmm_arch/abi/kvm_riscv64.py"
    right = module.read_text()
    edit(module, "KVM_API_VERSION = 12", "KVM_API_VERSION = 13")
    status, out, _ = copy.run("generate", "--check", *RISCV)
    assert status == 1
    assert "-KVM_API_VERSION = 13\n+KVM_API_VERSION = 12\n" in out
    assert copy.run("generate", "--diff", *RISCV)[0] == 0
    assert copy.run("generate", *RISCV)[0] == 0
    assert module.read_text() == right


def test_check_fails_on_an_orphan_and_generating_removes_it(copy: Copy) -> None:
    orphan = copy.root / "generated/vmm_arch/abi/kvm_vax.py"
    orphan.write_text("# Generated by vmm-arch-gen from a target that is no more\n")
    status, out, err = copy.run("generate", "--check")
    assert status == 1
    assert f"orphan: {orphan}: nothing generates it" in err
    assert "+++ /dev/null" in out
    assert copy.run("generate", "-q") == (0, "", "")
    assert not orphan.exists()


def test_a_file_that_was_never_generated_is_not_removed(copy: Copy) -> None:
    precious = copy.root / "generated/vmm_arch/notes.txt"
    precious.write_text("mine\n")
    status, _, err = copy.run("generate", "-q")
    assert status == 2
    assert f"error: {precious}: this file is in a folder of generated files" in err
    assert precious.read_text() == "mine\n"


def test_check_fails_on_changed_facts(copy: Copy) -> None:
    facts = copy.root / "headers/abi/kvm_riscv64.abi"
    edit(facts, "KVM_API_VERSION = 12", "KVM_API_VERSION = 13")
    status, out, err = copy.run("extract", "--check", *RISCV)
    assert status == 1
    assert "-constant KVM_API_VERSION = 13 in linux/kvm.h" in out
    assert err.endswith("run: vmm-arch-gen extract --only kvm_riscv64\n")
    status, _, err = copy.run("generate", *RISCV)
    assert status == 2
    assert "kvm_riscv64.abi: has been changed since it was written" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "--only", "kvm_x8664"], "kvm_x8664: there is no such target; did you mean kvm_x86_64 or"),
        (["extract", "--only", "vax"], "vax: there is no such target; targets: kvm_x86_64"),
        (["extract", *RISCV, "--include", "/no/such"], "--include /no/such: there is no such folder"),
        (["extract", *RISCV, "--cc", "no-such-cc"], "--cc no-such-cc: there is no such command; install"),
        (["extract", *RISCV, "--cc", "'unclosed"], "No closing quotation; quote it as for a shell"),
        (["extract", "--cc", "gcc"], "--cc: one compiler command compiles for one target; name that"),
        (["extract", *RISCV, "--cc", "false"], "false: this compiler failed with exit status 1 and said: nothing; name a C compiler"),
        (["extract", *RISCV, "--cc", "true"], "true: this compiler ended well but wrote no object file; name"),
        (["extract", *RISCV, "--include", "."], "linux/kvm.h: this header is in none of the include folders (.); name"),
        (["generate", *RISCV, "--abi", "templates"], "templates/kvm_riscv64.abi: no such file; run: vmm-arch-gen"),
        (["generate", *RISCV, "--output", "headers/targets.toml"], "headers/targets.toml"),
    ],
)  # fmt: skip
def test_bad_input_is_named_and_changes_nothing(
    arguments: list[str], message: str, copy: Copy
) -> None:
    before = snapshot(copy.root)
    status, out, err = copy.run(*arguments)
    after = {path: held for path, held in snapshot(copy.root).items() if "__pycache__" not in path}
    assert (status, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
    assert after == before


@pytest.mark.parametrize(
    ("path", "old", "new", "message"),
    [
        ("headers/targets.toml", 'triple = "x86', "tripel = 'x86", "cannot be read: "),
        ("headers/targets.toml", 'origin = "linux"', 'origin = "minix"', "targets.toml: [systems.linux] origin: there is no origin minix: did you mean mingw or linux? the origins are linux, "),
        ("headers/targets.toml", 'cpu_macro = "__x86_64__"', 'macro = "__x86_64__"', "targets.toml: [cpus.x86_64] macro: there is no column macro: did you mean cpu_macro? the columns are triple, "),
        ("headers/targets.toml", 'prelude = ', 'preamble = ', "targets.toml: [families.kvm.aarch64] preamble: there is no column preamble: "),
        ("headers/targets.toml", 'version = "0.17.1"', 'version = "0.1"', "ziglang: version 0.17.1 is installed, but headers/targets.toml pins 0.1; pip install ziglang==0.1"),
        ("headers/targets.toml", 'name = "ziglang"', 'name = "zigzag"', "zigzag: this package is not installed; pip install"),
        ("headers/targets.toml", 'bit_fields = "sysv"', 'bit_fields = "gcc"', "[cpus.x86_64] data_model: bit_fields is 'gcc', none of 'sysv', 'aapcs', 'ms'; compare"),
        ("headers/targets.toml", 'headers = ["linux/kvm.h", "linux/kvm_para.h"]', 'headers = "linux/kvm.h"', "[families.kvm] headers: is 'linux/kvm.h', not a list of strings"),
        ("headers/targets.toml", "long = 8", "long = 4", "the size of long is 4 as read from the header, but 8 for the compiler"),
        ("headers/shims/windows/windows.h", "typedef long LONG", "typedef short LONG", "the size of HRESULT is 2 as read from the header, but 4 for the compiler"),
    ],
)  # fmt: skip
def test_a_wrong_table_or_shim_is_refused(
    path: str, old: str, new: str, message: str, copy: Copy
) -> None:
    edit(copy.root / path, old, new)
    before = snapshot(copy.root / "headers")
    target = "whp_x86_64" if "shims" in path else "kvm_x86_64"
    status, _, err = copy.run("extract", "--only", target)
    assert status == 2
    assert message in err
    assert snapshot(copy.root / "headers") == before


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{% endif %}", "{% fi %}", "templates/vmm_arch/abi/target.py.j2:"),
        ("module.target", "module.tarket", "has no attribute 'tarket'; correct the line: "),
        (
            "from ctypes import (",
            "from ctypes import ((",
            "renders to something that is not Python",
        ),
    ],
)
def test_a_broken_template_is_refused(old: str, new: str, message: str, copy: Copy) -> None:
    edit(copy.root / "templates/vmm_arch/abi/target.py.j2", old, new)
    before = snapshot(copy.root / "generated")
    status, _, err = copy.run("generate", *RISCV)
    assert status == 2
    assert message in err
    assert "Traceback" not in err
    assert snapshot(copy.root / "generated") == before


def test_a_mistake_that_targets_share_is_said_once_and_with_all_others(copy: Copy) -> None:
    """In the contract, in the folder for every CPU, and in one that does not read the contract."""
    templates = copy.root / "templates"
    edit(templates / "vmm_arch/protocols/x86_64.py", '"kick": (),', '"kikc": (),')
    edit(
        templates / "hypervisors/kvm/operations.py.j2",
        "{% macro kick(vcpu) %}",
        "{% macro kick( %}",
    )
    edit(templates / "hypervisors/whp/x86_64/state.py", "SINKS = {", "SINK = {")
    edit(templates / "cpu/x86_64/exports.py", '"Halt",', '"Hlat",')
    (templates / "vmm_arch/selftest/x86_64/scenarios/halt.py").unlink()
    status, out, err = copy.run("generate")
    assert (status, out) == (2, "")
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(set(errors)) == len(errors)
    for where in (
        "templates/vmm_arch/protocols/x86_64.py:",
        "templates/hypervisors/kvm/operations.py.j2:",
        "templates/hypervisors/whp/x86_64/state.py:",
        "templates/cpu/x86_64/exports.py:",
        "templates/vmm_arch/selftest/x86_64/code.py:",
    ):
        assert [error for error in errors if where in error], (where, err)


def test_a_full_disk_leaves_the_tree_as_it_was(copy: Copy) -> None:
    """A limit on the size of files is the full disk that any user can have."""
    out = copy.root / "out"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    status, _, err = copy.run("generate", "--output", str(out), before=limit)
    assert status == 2
    assert "cannot be used: File too large; nothing was changed; free space" in err
    assert not out.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("delay", [0.3, 0.7, 1.1, 1.5])
def test_an_interrupt_leaves_all_or_nothing(
    number: signal.Signals, delay: float, copy: Copy
) -> None:
    out = copy.root / "out"
    process = copy.start("generate", "--output", str(out), "-q")
    time.sleep(delay)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    if out.exists():
        assert snapshot(out) == snapshot(copy.root / "generated")
    if process.returncode == 2:
        assert "error: vmm-arch-gen: interrupted; " in err
        assert "Traceback" not in err
    else:  # it had not yet begun, or was already done
        assert process.returncode != 0 or out.exists()


def test_the_same_bytes_on_another_machine(copy: Copy, tmp_path: Path) -> None:
    """In another folder, with another hash seed, nothing remembered, another time zone and language."""
    other = {
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PYTHONHASHSEED": "4711",
        "TZ": "Asia/Tokyo",
        "LC_ALL": "C",
    }
    facts, out = copy.root / "facts", copy.root / "out"
    arguments = ["-q", "--only", "kvm_riscv64", "--only", "whp_x86_64"]
    assert copy.run("extract", *arguments, "--output", str(facts), environment=other) == (0, "", "")
    generate = ["generate", *arguments, "--abi", str(facts), "--output", str(out)]
    assert copy.run(*generate, environment=other) == (0, "", "")
    for target in ("kvm_riscv64", "whp_x86_64"):
        module = f"vmm_arch/abi/{target}.py"
        assert (out / module).read_bytes() == (copy.root / "generated" / module).read_bytes()
        committed = copy.root / "headers" / "abi" / f"{target}.abi"
        assert (facts / f"{target}.abi").read_bytes() == committed.read_bytes()


def test_the_systems_headers_with_gcc(copy: Copy) -> None:
    """Other headers and another compiler, without the pinned package's help."""
    require(shutil.which("gcc") is not None, "no gcc (Debian: apt-get install gcc)")
    require(Path("/usr/include/linux/kvm.h").exists(), "no linux/kvm.h (Debian: linux-libc-dev)")
    require(os.uname().machine == "x86_64", "this machine's gcc compiles for another CPU")
    edit(copy.root / "headers/targets.toml", 'name = "ziglang"', 'name = "not-installed"')
    facts, out = copy.root / "facts", copy.root / "out"
    folders = ["/usr/include", "/usr/include/x86_64-linux-gnu"]
    include = [word for folder in folders for word in ("--include", folder)]
    only = ["--only", "kvm_x86_64"]
    status, _, err = copy.run("extract", *only, *include, "--cc", "gcc", "--output", str(facts))
    assert status == 0, err
    text = (facts / "kvm_x86_64.abi").read_text()
    assert "\norigin Linux " in text
    assert "constant KVM_API_VERSION = 12 in linux/kvm.h" in text
    assert "  @ 128 rip, rflags __u64" in text
    assert "struct kvm_regs is 144 bytes aligned 8 in asm/kvm.h" in text
    assert copy.run("generate", "-q", *only, "--abi", str(facts), "--output", str(out)) == (
        0,
        "",
        "",
    )
    check = "from vmm_arch.abi.kvm_x86_64 import KVM_RUN; assert KVM_RUN == 0xAE80"
    code = f"import sys; sys.path.insert(0, {str(out)!r}); {check}"
    assert subprocess.run([sys.executable, "-I", "-c", code], check=False).returncode == 0


def test_help_says_what_the_commands_do(copy: Copy) -> None:
    status, out, _ = copy.run("--help")
    assert status == 0
    assert "extract" in out
    assert "Exit status: 0 all is well" in " ".join(out.split())
    for command in ("extract", "generate"):
        assert copy.run(command, "--help")[0] == 0
    assert copy.run("generat")[0] == 2


def test_a_reader_of_the_diff_may_have_seen_enough(copy: Copy) -> None:
    command = f"{sys.executable} -m vmm_arch_gen generate -q --diff --output new | head -n 1"
    done = subprocess.run(
        command, shell=True, cwd=copy.root, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("--- /dev/null\n", "")
