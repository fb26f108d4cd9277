"""The runner for kvm-unit-tests, over tiny programs of their kind: their own are not to be had here."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from boot.images import elf32
from guests.assemble import assemble
from images import Part
from requirements import require
from vmm_arch.x86_64.cpuid import CpuidEntry
from whp.build import PLATFORM, libraries

from kvm_unit_tests import configuration, processor
from kvm_unit_tests.comparison import STUCK, TIMEOUT, Outcome, differences, outcome
from kvm_unit_tests.configuration import ConfigurationError, Test
from kvm_unit_tests.processor import Unsupported

HERE = Path(__file__).parent
ORIGIN = 0x400000
NAMES = [path.stem for path in sorted((HERE / "programs").glob("*.S"))]


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as kvm-unit-tests have it, with every program."""
    folder = tmp_path_factory.mktemp("kvm-unit-tests")
    (folder / "x86").mkdir()
    for name in NAMES:
        code = assemble(HERE / "programs" / f"{name}.S", ORIGIN)
        assert len(code) < 0x2000
        image = elf32([Part(ORIGIN, code, 0x4000)])
        (folder / "x86" / f"{name}.flat").write_bytes(image)
    sections = [f"[{name}]\nfile = {name}.flat\nsmp = 2\n" for name in NAMES]
    (folder / "x86" / "unittests.cfg").write_text("\n".join(sections))
    return folder


def environ(hypervisor: str) -> Mapping[str, str]:
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")
    if hypervisor == "whp":
        return os.environ | {"VMM_ARCH_WINHVPLATFORM": str(libraries() / PLATFORM)}
    return os.environ


def machine(
    programs: Path, name: str, *arguments: str, hypervisor: str = "kvm"
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(HERE / "machine.py"), "--hypervisor", hypervisor, "--cpus", "2"]
    command += ["--timeout", "3", str(programs / "x86" / f"{name}.flat"), "--", *arguments]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environ(hypervisor),
    )


def runner(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(HERE / "runner.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def without_times(text: str) -> list[str]:
    return [re.sub(r" *\d+\.\d s *", " ", line).strip() for line in text.splitlines()]


# One program over the public API


@pytest.mark.parametrize("hypervisor", ["kvm", "whp"])
@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        ("devices", 1, "PASS: a page that the host forgot"),
        ("fails", 3, "FAIL: what is not so"),
        ("skips", 77, "SKIP: nothing to try"),
        ("spins", 124, "PASS: as far as this"),
        ("faults", 0, "PASS: as far as this"),
    ],
)
def test_a_program_ends_as_in_qemu(
    programs: Path, hypervisor: str, name: str, status: int, said: str
) -> None:
    done = machine(programs, name, hypervisor=hypervisor)
    assert done.returncode == status, done.stdout + done.stderr
    assert said in done.stdout


def test_a_program_is_told_its_arguments_and_its_environment(programs: Path) -> None:
    done = machine(programs, "told", "-v", "two words")
    first, second = done.stdout.splitlines()
    assert first == f"PASS: told {programs / 'x86' / 'told.flat'} -v two words"
    assert second == f"KERNEL_VERSION_STRING={os.uname().release}"


def test_interrupt_lines_can_be_raised_and_lowered(programs: Path) -> None:
    done = machine(programs, "line")
    assert done.returncode == 1, done.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["no-such.flat"], "No such file or directory"),
        ([__file__], "it has no Multiboot header"),
        (["--cpu", "max,+hle", "x"], "-cpu …,+hle: this machine does not have that"),
    ],
)
def test_what_the_machine_cannot_run_is_an_error(arguments: list[str], complaint: str) -> None:
    command = [sys.executable, str(HERE / "machine.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


# The runner


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A program that says what QEMU would, which takes longer: all that the programs say passes."""
    script = tmp_path / "qemu"
    script.write_text(f"""#!{sys.executable}
import sys, time
name = sys.argv[sys.argv.index("-kernel") + 1]
assert open(sys.argv[sys.argv.index("-initrd") + 1]).read().startswith("KERNEL_VERSION_STRING=")
assert sys.argv[sys.argv.index("-smp") + 1] == "2"
if "told" in name:
    time.sleep(60)
if "fails" in name:
    print("PASS: what is so, after 0x99 cycles\\r\\nPASS: what is not so\\r")
    sys.exit(1)
print("SKIP: nothing to try\\r")
sys.exit(77)
""")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return script


def test_the_table_says_what_is_the_same_and_what_is_not(
    programs: Path, stand_in: Path, tmp_path: Path
) -> None:
    environ("kvm")
    done = runner(programs, "fails", "skips", "--qemu", stand_in, "--output", tmp_path / "said")
    assert done.returncode == 1
    assert [re.sub(" +", " ", line) for line in without_times(done.stdout)] == [
        "fails fail (3) 1 PASS 1 FAIL pass (1) 2 PASS DIFFERENT",
        "exit status 3 here, 1 in QEMU",
        "here only: FAIL: what is not so",
        "in QEMU only: PASS: what is not so",
        "skips skip (77) 1 SKIP skip (77) 1 SKIP same",
        "1 same, 1 different, 0 unfinished, 0 not run",
    ]
    assert "what is so" in (tmp_path / "said" / "fails.ours").read_text()
    assert "what is so" in (tmp_path / "said" / "fails.qemu").read_text()

    done = runner(programs, "skips", "--qemu", stand_in)
    assert done.returncode == 0


def test_where_qemu_comes_to_no_end_nothing_is_said_to_be_different(
    programs: Path, stand_in: Path
) -> None:
    environ("kvm")
    done = runner(programs, "skips", "told", "--qemu", stand_in, "--timeout", "2")
    assert done.returncode == 3
    same, unfinished, remedy, sums = done.stdout.splitlines()
    assert same.endswith("same")
    assert unfinished.endswith("unfinished")
    assert remedy.endswith("give more with --timeout")
    assert sums == "1 same, 0 different, 1 unfinished, 0 not run"


def test_the_same_in_qemu(programs: Path) -> None:
    """The devices here are QEMU's, as far as a program can tell."""
    environ("kvm")
    require(shutil.which("qemu-system-x86_64") is not None, "no qemu-system-x86_64")
    done = runner(programs, "devices", "line", "faults", "is_qemu", "--timeout", "60")
    rows = [line.split()[0] + " " + line.split()[-1] for line in done.stdout.splitlines()]
    assert [row for row in rows if row.endswith(("same", "DIFFERENT"))] == [
        *("devices same", "faults same", "is_qemu DIFFERENT", "line same")
    ], (done.stdout + done.stderr)
    assert "here only: FAIL: a signature" in done.stdout


def test_without_qemu_a_program_that_fails_is_what_counts(programs: Path) -> None:
    environ("kvm")
    done = runner(programs, "skips", "told", "--qemu", "no-such-program")
    assert done.returncode == 0
    assert "there is no no-such-program: nothing to compare with" in done.stderr
    assert done.stdout.endswith("0 failed, 0 not run; there is no QEMU to compare with\n")
    done = runner(programs, "fails", "--no-qemu")
    assert done.returncode == 1
    assert done.stderr == ""


def test_help_and_list(programs: Path) -> None:
    assert runner("--help").stdout.startswith("usage: runner.py")
    assert runner(programs, "--list").stdout.split() == NAMES
    assert runner(programs, "--list", "f*").stdout.split() == ["fails", "faults"]


def test_what_is_missing_is_named(programs: Path, tmp_path: Path) -> None:
    def complaint(*arguments: object) -> str:
        done = runner(*arguments)
        assert done.returncode == 2
        assert done.stdout == ""
        return done.stderr

    assert complaint(tmp_path / "no") == f"runner.py: there is no folder {tmp_path / 'no'}\n"
    assert "give a checkout of kvm-unit-tests that was built" in complaint(tmp_path)
    (tmp_path / "unittests.cfg").write_text("[a]\nfile = a.flat\n")
    assert "and no images (*.flat): build them (./configure && make)" in complaint(tmp_path)
    assert "no test is called x*; --list shows their names" in complaint(programs, "x*")
    assert "no test is in the group x; --list shows" in complaint(programs, "--group", "x")


def test_a_machine_that_is_stuck_is_not_waited_for() -> None:
    says = (
        "import sys, time; sys.stderr.write('KVM internal error. Suberror: 1'); sys.stderr.flush()"
    )
    stuck = outcome([sys.executable, "-c", f"{says}; time.sleep(60)"], 50)
    assert stuck.status == STUCK
    assert stuck.seconds < 40
    slow = outcome([sys.executable, "-c", "import time; print('x', flush=True); time.sleep(60)"], 2)
    assert (slow.status, slow.output) == (TIMEOUT, "x\n")


def test_a_command_that_has_a_fault_did_not_pass() -> None:
    """Python's exit status is 1 then, and so is that of a program that passed."""
    assert outcome([sys.executable, "-c", "assert False"], 20).verdict == "error"
    assert outcome([sys.executable, "-c", "raise SystemExit(1)"], 20).verdict == "pass"


def test_numbers_are_not_compared() -> None:
    one = Outcome(1, "PASS: x 12 cycles at 0xffab\r\nother 1\r\n", "", 1)
    other = Outcome(1, "PASS: x 1234 cycles at 0x8\r\nother 2\r\n", "", 2)
    assert differences(one, other) == []
    assert one.verdicts() == {"PASS: x # cycles at #": 1}


# unittests.cfg

CONFIGURATION = '''
# kvm-unit-tests' own files look like this

[plain]
file = plain.flat

[all]
file = all.flat
smp = 4
test_args = "-a b" `date +%s`
extra_params = -cpu qemu64,-x2apic,+tsc-deadline -m 4g -machine pit=off
groups = slow nodefault
arch = x86_64
accel = kvm
timeout = 240s
kvmtool_params = --mem 256

[lines]
file = lines.flat
qemu_params = """-cpu max \\
-m 256
-enable-kvm"""
'''


def read(tmp_path: Path, text: str) -> list[Test]:
    (tmp_path / "unittests.cfg").write_text(text)
    return configuration.read(tmp_path / "unittests.cfg", tmp_path)


def test_a_configuration_is_read(tmp_path: Path) -> None:
    plain, everything, lines = read(tmp_path, CONFIGURATION)
    assert plain == Test("plain", tmp_path / "plain.flat")
    assert re.fullmatch(r"-a b \d{10}", everything.arguments)
    assert (everything.cpus, everything.timeout) == (4, 240)
    assert everything.groups == ("slow", "nodefault")
    wish = processor.read(everything.parameters)
    assert wish.memory == 4096
    assert wish.processor == "max,-arch-capabilities,-x2apic,+tsc-deadline"
    assert wish.others == ("-machine", "pit=off")
    assert processor.read(lines.parameters).memory == 256


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("file = x.flat\n", ":1: file stands before the first [section]"),
        ("[a]\nwhat is this\n", ":2: 'what is this' is neither [section] nor key = value"),
        ("[a]\nsmp = 2\n", "[a] names no file"),
        ("[a]\nfile = a.flat\ntimeout = long\n", ":3: timeout: could not convert string to float"),
        ("[a]\nfile = a.flat\ntest_args = `ls`\n", ":3: test_args: a shell would run a command in"),
        ('[a]\nfile = a.flat\nqemu_params = """-m 5\n', ':3: qemu_params has no closing """'),
        ('[a]\nfile = a.flat\ntest_args = "a\n', ":3: test_args: No closing quotation"),
    ],
)
def test_a_configuration_that_is_wrong_is_refused_with_its_line(
    tmp_path: Path, text: str, complaint: str
) -> None:
    with pytest.raises(ConfigurationError) as error:
        read(tmp_path, text)
    assert complaint in str(error.value)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("arch = i386", "for i386 only"),
        ("accel = tcg", "for QEMU's tcg only"),
        ("machine = q35", "for the machine q35 only"),
        ("groups = migration", "migrates"),
        ("smp = $MAX_SMP", "smp = $MAX_SMP is no number of CPUs"),
        ("check = /no/such/file=Y", "there is no /no/such/file"),
        ("check = /dev/null=Y", "/dev/null is , not Y"),
        ("disabled_if = true", "its disabled_if is for run_tests.sh: true"),
        ("smp = 2", "there is no a.flat"),
        ("check = /dev/null=", "there is no a.flat"),
    ],
)
def test_what_is_not_for_this_machine_is_not_run(tmp_path: Path, line: str, why: str) -> None:
    (test,) = read(tmp_path, f"[a]\nfile = a.flat\n{line}\n")
    assert test.obstacle() == why


@pytest.mark.parametrize(
    "parameters",
    [
        ("-device", "hyperv-testdev"),
        ("-machine", "vmport=on"),
        ("-cpu", "host,hv_passthrough"),
        ("-cpu", "IvyBridge,phys-bits=36"),
        ("-cpu", "max,+no-such-feature"),
        ("-m", "some"),
        ("-S",),
    ],
)
def test_what_only_qemu_has_is_not_run(parameters: tuple[str, ...]) -> None:
    with pytest.raises(Unsupported, match=re.escape(parameters[0])):
        processor.read(parameters)


def test_a_processor_loses_features_and_gets_another_vendor() -> None:
    entries = [CpuidEntry(0, None, 1, 2, 3, 4), CpuidEntry(1, None, ecx=1 << 21 | 1 << 17)]
    vendor, features = processor.read_processor("max,vendor=GenuineIntel,-x2apic,+pcid,+umip")
    first, second = processor.cpuid(entries, vendor, features)
    assert first.eax == 1
    assert b"".join(value.to_bytes(4, "little") for value in (first.ebx, first.edx, first.ecx)) == (
        b"GenuineIntel"
    )
    assert second.ecx == 1 << 17
