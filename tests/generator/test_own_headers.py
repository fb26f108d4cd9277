"""The recipes for those with headers of their own, followed literally."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

HEADER = """
#define KVM_API_VERSION 12
struct kvm_regs { unsigned long long rip; };
"""


def run(command: list[str], folder: Path, **environment: str) -> tuple[int, str]:
    """Exit status and what was printed."""
    path = os.pathsep.join([str(folder / ".bin"), os.environ["PATH"]])
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PATH": path} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.fixture
def recipe(checkout: Path) -> str:
    # With small headers: those of a target with a backend have to have what that needs.
    text = (checkout / "headers/own-headers.md").read_text()
    return text.replace("kvm_x86_64", "linux_x86_64")


@pytest.fixture
def repository(recipe: str, tmp_path: Path) -> Path:
    """A repository with a header, facts and modules, made as the page says."""
    tools = tmp_path / ".bin"
    tools.mkdir()
    for name, text in (
        ("vmm-arch-gen", f'exec {shlex.quote(sys.executable)} -m vmm_arch_gen "$@"'),
        ("gh", 'echo "gh $@"; cat "${@: -1}"'),
    ):
        (tools / name).write_text(f"#!/bin/bash\n{text}\n")
        (tools / name).chmod(0o755)
    for name, text in (("asm/bootparam.h", HEADER), ("linux/elf.h", "")):
        header = tmp_path / "headers/include" / name
        header.parent.mkdir(parents=True, exist_ok=True)
        header.write_text(text)
    (tmp_path / ".gitignore").write_text(".bin\n")
    newer = recipe.partition("## Newer headers")[2]
    console = re.search(r"```console\n(.*?)```", newer, re.S)
    assert console is not None
    assert run(["git", "init", "-q"], tmp_path)[0] == 0
    for line in console[1].splitlines()[1:]:  # make is others' business
        status, printed = run(["sh", "-c", line.removeprefix("$ ")], tmp_path)
        assert status == 0, printed
    commit(tmp_path)
    return tmp_path


def commit(repository: Path) -> None:
    run(["git", "add", "-A"], repository)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    assert run(["git", *identity, "commit", "-qm", "a commit"], repository)[0] == 0


def update(repository: Path, header: str) -> None:
    (repository / "headers/include/asm/bootparam.h").write_text(header)
    only = ["vmm-arch-gen", "extract", "-q", "--only", "linux_x86_64"]
    assert run([*only, "--include", "headers/include", "--output", "abi"], repository) == (0, "")
    generate = ["vmm-arch-gen", "generate", "-q", "--only", "linux_x86_64"]
    assert run([*generate, "--abi", "abi", "--output", "src"], repository)[0] == 0


def ci(repository: Path, recipe: str, **environment: str) -> tuple[int, str]:
    script = re.search(r"```sh\n(.*?)```", recipe, re.S)
    assert script is not None
    return run(["sh", "-c", script[1]], repository, BASE="HEAD", PR="7", **environment)


def test_what_ci_says(repository: Path, recipe: str) -> None:
    status, printed = ci(repository, recipe)
    assert (status, "gh pr comment" in printed) == (0, False), printed
    (repository / "headers/include/asm/bootparam.h").write_text(HEADER + "#define KVM_CAP_NEW 1\n")
    status, printed = ci(repository, recipe)
    assert status == 1
    assert "run: vmm-arch-gen extract --only linux_x86_64" in printed
    update(repository, HEADER + "#define KVM_CAP_NEW 1\n")
    status, printed = ci(repository, recipe)
    assert status == 0, printed
    assert "gh pr comment 7" in printed
    assert "+ KVM_CAP_NEW  1" in printed
    update(repository, HEADER.replace("rip;", "rip, rsp;"))
    status, printed = ci(repository, recipe)
    assert status == 1
    assert "resized: 1 record" in printed
    assert ci(repository, recipe, BREAKING_IS_FINE="yes")[0] == 0


def test_the_hooks_install_what_the_commands_need(checkout: Path) -> None:
    """pre-commit installs a package without its extras, so that the hooks name what is in them."""
    hooks = (checkout / ".pre-commit-hooks.yaml").read_text()
    project = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    extract = [needed for needed in extras["extract"] if not needed.startswith("vmm-arch[")]
    first, second = hooks.split("- id: ")[1:]
    assert re.findall(r'"(\S+?)"', first) == extras["generator"]
    assert re.findall(r'"(\S+?)"', second) == extras["generator"] + extract


def test_one_header_and_a_table_of_ones_own(checkout: Path, tmp_path: Path) -> None:
    """The page's first two sections: each command prints what is below it."""
    text = (checkout / "headers/own-headers.md").read_text().partition("## Newer headers")[0]
    for block in re.findall(r"^```(?:c|toml)\n(.*?)^```", text, re.S | re.M):
        name = re.match(r"(?://|#) (\S+)", block)
        assert name is not None
        (tmp_path / name[1]).write_text(block)
    (tmp_path / "include").mkdir()
    version = "#define PAPER_VERSION 0x10\n"
    header = (tmp_path / "paper.h").read_text()
    (tmp_path / "include/paper.h").write_text(header + version)
    (tmp_path / ".bin").mkdir()
    tool = tmp_path / ".bin/vmm-arch-gen"
    tool.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m vmm_arch_gen "$@"\n')
    tool.chmod(0o755)
    followed = 0
    for block in re.findall(r"^```console\n(.*?)^```", text, re.S | re.M):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, *said = part.splitlines()
            if command.startswith("pip "):
                continue
            status, printed = run(
                ["sh", "-c", command.replace("python3", shlex.quote(sys.executable))], tmp_path
            )
            assert status == 0, printed
            for line in said:
                assert line in printed
            followed += 1
    assert followed == 4
    assert "origin own Paper 0x10 headers, " in (tmp_path / "abi/paper_aarch64.abi").read_text()
    assert (tmp_path / "src/vmm_arch/abi/paper_aarch64.py").exists()
