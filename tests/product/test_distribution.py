"""The wheel and the editable install, each in an environment of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from vmm_arch_gen.generate.formatting import BLACK_VERSION, LINE_LENGTH, TARGET_VERSION

TARGET = "kvm_riscv64"


def run(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program that finds what is installed, and nothing that a PYTHONPATH of ours names."""
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        command, cwd=folder, env=outside, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, by way of the source distribution, as a release is built."""
    folder = tmp_path_factory.mktemp("dist")
    built = run(
        sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, checkout, folder=folder
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.glob("*.whl")
    return path


def environment(folder: Path, *install: str | Path) -> Path:
    """A new environment with something installed, and the libraries of this one behind it."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    (packages,) = folder.glob("lib/*/site-packages")
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "libraries.pth").write_text(
        "\n".join(libraries)
    )  # whose own .pth files are not read
    done = run(
        sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps",
        "--no-build-isolation", "--disable-pip-version-check", *install, folder=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return python


def test_the_wheel_holds_both_packages_and_their_data(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "vmm_arch/py.typed",
        "vmm_arch/abi/kvm_x86_64.py",
        "vmm_arch_gen/cli.py",
        "vmm_arch_gen/templates/vmm_arch/abi/target.py.j2",
        "vmm_arch_gen/headers/targets.toml",
        "vmm_arch_gen/headers/shims/windows/windows.h",
        "vmm_arch_gen/headers/abi/kvm_x86_64.abi",
    } <= names
    assert not [name for name in names if name.startswith(("generator", "generated", "tests"))]
    metadata = zipfile.ZipFile(wheel).read(f"{wheel.name[:14]}.dist-info/METADATA").decode()
    required = re.findall(r"^Requires-Dist: (.*)$", metadata, re.M)
    assert required, "the extras are gone"
    assert all("extra ==" in line for line in required), "vmm_arch needs something"


def test_an_installed_wheel(wheel: Path, checkout: Path, tmp_path: Path) -> None:
    python = environment(tmp_path / "env", wheel)
    code = "import vmm_arch.abi.kvm_x86_64 as module; print(module.__file__)"
    imported = run(python, "-I", "-c", code, folder=tmp_path)
    assert imported.stdout.startswith(str(tmp_path)), imported.stderr
    command = tmp_path / "env" / "bin" / "vmm-arch-gen"
    refused = run(command, "generate", folder=tmp_path)
    assert refused.returncode == 2
    assert "--output: this generator is installed, not a checkout" in refused.stderr
    out = tmp_path / "out"
    done = run(command, "generate", "-q", "--only", TARGET, "--output", out, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    module = Path("vmm_arch", "abi", f"{TARGET}.py")
    assert (out / module).read_bytes() == (checkout / "generated" / module).read_bytes()


def test_a_wheel_without_its_extras_says_what_is_missing(wheel: Path, tmp_path: Path) -> None:
    done = run(
        sys.executable, "-I", "-S", "-c",
        f"import sys; sys.path.insert(0, {str(wheel)!r});"
        "from vmm_arch_gen.__main__ import run; run()",
        folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert "error: click: this package is not installed" in done.stderr


def test_an_editable_install(checkout: Path, tmp_path: Path) -> None:
    python = environment(tmp_path / "env", "-e", checkout)
    code = "import vmm_arch.abi.kvm_x86_64 as m, vmm_arch_gen; print(m.__file__, vmm_arch_gen.__file__)"
    done = run(python, "-I", "-c", code, folder=tmp_path)
    assert done.stdout.split() == [
        str(checkout / "generated/vmm_arch/abi/kvm_x86_64.py"),
        str(checkout / "generator/vmm_arch_gen/__init__.py"),
    ], done.stderr


def test_the_generators_style_is_the_projects(checkout: Path) -> None:
    project = tomllib.loads((checkout / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    assert f"black=={BLACK_VERSION}" in extras["generator"]
    configured = project["tool"]["black"]
    assert configured["line-length"] == LINE_LENGTH
    assert configured["target-version"] == [TARGET_VERSION]
