#!/usr/bin/env python3
"""Everything that is done with a checkout. Needs Python 3.11 or newer and nothing else:

    python3 noxfile.py -s generate     extract the headers' facts, prove them, generate vmm_arch
    python3 noxfile.py                 lint and test
    python3 noxfile.py --list          what else there is

Run like this it makes an environment with nox in .nox/ and goes on in there. With nox installed,
``nox`` does the same.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent
HUGE_PAGES = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
HUGE_PAGES_OF_TESTS = 16
NOX_ENVIRONMENT = ROOT / ".nox" / "bootstrap"
ENVIRONMENT = ROOT / ".nox" / "dev"


# What tests need besides Python's packages: what has to be there, Debian's packages, what for.
TEST_TOOLS = [
    (["gcc", "/usr/include/linux/kvm.h"], ["gcc", "libc6-dev"], "gcc with the system's headers"),
    (["iasl"], ["acpica-tools"], "the ACPI tables, read by ACPICA"),
    (["/usr/sbin/dmidecode"], ["dmidecode"], "the SMBIOS tables, read by dmidecode"),
    (["qemu-system-x86_64"], ["qemu-system-x86"], "the nested machine: a stock kvm-amd, and Linux"),
    (
        ["gdb", "readelf", "crash"],
        ["gdb", "binutils", "crash"],
        "the debugger's server and core dumps, by gdb itself",
    ),
    (["/usr/sbin/mke2fs"], ["e2fsprogs"], "a guest's disk with a root file system"),
    (["chromium"], ["chromium"], "the pictures of records, looked at by a browser"),
]


def python_of(environment: Path) -> Path:
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def give_up(what: str) -> None:
    sys.exit(f"noxfile.py: {what}")


def install_debian_packages(packages: list[str], purpose: str) -> bool:
    """Install Debian packages if this user may; else say what is left out and how to get it."""
    command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    if shutil.which("apt-get") and os.geteuid() == 0:
        os.environ["DEBIAN_FRONTEND"] = "noninteractive"
        for step in (["apt-get", "update"], command):
            done = subprocess.run(step, stdout=subprocess.DEVNULL, check=False)
        if done.returncode == 0:
            return True
    print(f"left out: {purpose}. To have it: sudo {' '.join(command)}", file=sys.stderr)
    return False


def make_environment(environment: Path) -> None:
    """A virtual environment with pip, made with what Python itself has."""
    command = [sys.executable, "-m", "venv", "--clear", str(environment)]
    if subprocess.run(command, capture_output=True, check=False).returncode == 0:
        return
    # Debian keeps the venv module's other half in a package of its own.
    install_debian_packages(["python3-venv"], "virtual environments, which everything else needs")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        give_up(f"no virtual environment can be made:\n{done.stdout}{done.stderr}")


def bootstrap() -> None:
    """Run this file again where nox is installed."""
    if sys.version_info < (3, 11):  # noqa: UP036 - older ones are told so here
        give_up(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]}")
    python = python_of(NOX_ENVIRONMENT)
    have_nox = [str(python), "-c", "import nox"]
    if not python.exists() or subprocess.run(have_nox, capture_output=True, check=False).returncode:
        print("noxfile.py: installing nox into .nox/bootstrap", file=sys.stderr)
        make_environment(NOX_ENVIRONMENT)
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "nox"]
        if subprocess.run(pip, check=False).returncode:
            give_up("pip could not install nox; its message is above")
    arguments = [str(python), str(Path(__file__).resolve()), *sys.argv[1:]]
    sys.exit(subprocess.run(arguments, check=False).returncode)


try:
    import nox
except ImportError:
    if __name__ != "__main__":
        raise
    bootstrap()

nox.options.sessions = ["lint", "tests"]
nox.options.stop_on_first_error = True


def prepare(session: nox.Session) -> str:
    """One environment for all sessions, since the pinned compiler alone takes 400 MB."""
    python = python_of(ENVIRONMENT)
    project = (ROOT / "pyproject.toml").read_bytes()
    wanted = hashlib.sha256(project + str(ROOT).encode() + sys.version.encode()).hexdigest()
    stamp = ENVIRONMENT / "made-for"
    if not stamp.exists() or stamp.read_text() != wanted:
        session.log(
            "installing the generator, its pinned compiler and the test tools into .nox/dev"
        )
        make_environment(ENVIRONMENT)
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        session.run(*pip, "--upgrade", "pip>=25.1", external=True)
        groups = ["--group", "lint", "--group", "tests"]
        session.run(*pip, *groups, "-e", ".[extract]", external=True)
        stamp.write_text(wanted)
    session.env["PATH"] = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    return str(python)


@contextmanager
def huge_pages() -> Iterator[None]:
    """Reserve a few of Linux's huge pages for the tests that take some, and give them back."""
    reserved = HUGE_PAGES / "nr_hugepages"
    before = int(reserved.read_text()) if reserved.exists() else 0
    free = int((HUGE_PAGES / "free_hugepages").read_text()) if reserved.exists() else 0
    wanted = str(before + max(HUGE_PAGES_OF_TESTS - free, 0))
    if os.access(reserved, os.W_OK):
        reserved.write_text(wanted)
    elif free < HUGE_PAGES_OF_TESTS:
        print(
            "left out: guest memory on reserved huge pages. To have it:"
            f" echo {wanted} | sudo tee {reserved}",
            file=sys.stderr,
        )
    try:
        yield
    finally:
        if os.access(reserved, os.W_OK):
            reserved.write_text(str(before))


def run(session: nox.Session, *command: str) -> None:
    """Run a program of the shared environment."""
    session.run(str(python_of(ENVIRONMENT).parent / command[0]), *command[1:], external=True)


@nox.session(venv_backend="none")
def generate(session: nox.Session) -> None:
    """Extract the headers' facts, prove them with the compiler, and generate vmm_arch."""
    prepare(session)
    run(session, "vmm-arch-gen", "extract", *session.posargs)
    run(session, "vmm-arch-gen", "generate", *session.posargs)


@nox.session(venv_backend="none")
def check(session: nox.Session) -> None:
    """Regenerate everything in memory and compare: nothing may differ."""
    prepare(session)
    run(session, "vmm-arch-gen", "extract", "--check")
    run(session, "vmm-arch-gen", "generate", "--check")


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """black, ruff and mypy --strict on everything, the output included."""
    prepare(session)
    run(session, "black", "--check", "-q", ".")
    run(session, "ruff", "check", "-q", ".")
    run(session, "mypy")
    run(session, "mypy", "templates/vmm_arch")
    run(session, "mypy", "tests", "examples", "noxfile.py")


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """Test everything; arguments after -- go to pytest."""
    prepare(session)
    for needed, packages, purpose in TEST_TOOLS:
        if not all(shutil.which(name) or Path(name).exists() for name in needed):
            install_debian_packages(packages, purpose)
    # pytest's summary is to be the last thing that is printed.
    logging.getLogger("nox").disabled = bool(os.environ.get("CI"))
    with huge_pages():
        run(
            session,
            "pytest",
            "-n",
            "auto",
            "--maxprocesses",
            "4",
            "--dist",
            "loadgroup",
            "--no-loadscope-reorder",  # conftest.py has an order
            *session.posargs,
        )


@nox.session(venv_backend="none")
def bench(session: nox.Session) -> None:
    """Measure what the project promises to be fast, each against something comparable."""
    prepare(session)
    run(session, "python", "tests/bench/bench.py", *session.posargs)
    run(session, "python", "tests/bench/linux.py")


@nox.session(venv_backend="none")
def differential(session: nox.Session) -> None:
    """Run random guests on several executors and compare each step: -- --help."""
    prepare(session)
    run(session, "python", "tests/differential/runner.py", *session.posargs)


@nox.session(venv_backend="none")
def kvm_unit_tests(session: nox.Session) -> None:
    """Run kvm-unit-tests here and in QEMU, and compare: -- FOLDER [PATTERN ...], or -- --help."""
    prepare(session)
    run(session, "python", "tests/kvm_unit_tests/runner.py", *session.posargs)


if __name__ == "__main__":
    os.chdir(ROOT)
    nox.main()
