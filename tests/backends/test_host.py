"""What the commands say of the host: processor, machine, KVM's module, what guests cannot execute."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from guests.assemble import assemble
from vmm_arch import kvm
from vmm_arch.command import host, run, x86_64
from vmm_arch.ending import Ending, Reason
from vmm_arch.selftest.x86_64 import instructions
from vmm_arch.selftest.x86_64.harness import AnyBackend
from vmm_arch.selftest.x86_64.instructions import INSTRUCTIONS, Instruction, missing_instructions
from vmm_arch.x86_64.cpuid import CpuidEntry, identity

INTEL = CpuidEntry(0, None, 0x1F, 0x756E6547, 0x6C65746E, 0x49656E69)
AMD = CpuidEntry(0, None, 0x10, 0x68747541, 0x444D4163, 0x69746E65)


@pytest.mark.parametrize(
    ("vendor", "signature", "said"),
    [
        (AMD, 0x00A10F11, "AuthenticAMD family 25 model 17 stepping 1"),
        (AMD, 0x00000662, "AuthenticAMD family 6 model 6 stepping 2"),
        (INTEL, 0x000306C3, "GenuineIntel family 6 model 60 stepping 3"),
        (INTEL, 0x00000F29, "GenuineIntel family 15 model 2 stepping 9"),
        (INTEL, 0x00000543, "GenuineIntel family 5 model 4 stepping 3"),
    ],
)
def test_a_processor_is_named_by_cpuid(vendor: CpuidEntry, signature: int, said: str) -> None:
    assert identity([vendor, CpuidEntry(1, None, eax=signature)]) == said


def test_without_cpuid_a_processor_is_unknown() -> None:
    assert identity([]) == "unknown"


CPUINFO = """\
processor\t: 0
model name\t: A Processor @ 2.60GHz
flags\t\t: fpu vme{flag}

processor\t: 1
model name\t: Another
"""


@pytest.mark.skipif(sys.platform == "win32", reason="reads what Linux tells")
@pytest.mark.parametrize(
    ("flag", "kind"), [("", "not a virtual machine"), (" hypervisor", "a virtual machine")]
)
def test_linux_tells_of_its_host(
    flag: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(CPUINFO.format(flag=flag))
    (tmp_path / "sys_vendor").write_text("QEMU\n")
    (tmp_path / "product_name").write_text("Standard PC\n")
    monkeypatch.setattr(host, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(host, "_DMI", tmp_path)
    about = host.about_host("AuthenticAMD family 25", x86_64.is_virtual)
    assert about["processor"] == "AuthenticAMD family 25, A Processor @ 2.60GHz"
    assert about["machine"] == f"QEMU Standard PC, {kind}"
    assert about["system"].startswith("Linux ")


@pytest.mark.skipif(sys.platform == "win32", reason="reads what Linux tells")
def test_what_linux_does_not_tell_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "_CPUINFO", tmp_path / "no")
    monkeypatch.setattr(host, "_DMI", tmp_path / "no")
    about = host.about_host("unknown", x86_64.is_virtual)
    assert about["processor"] == "unknown, unknown"
    assert about["machine"] == "unknown, not a virtual machine"


def test_kvms_module_is_named_with_what_tells_hosts_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kvm, "MODULES", tmp_path)
    check = kvm.check_modules(["nested", "npt"])
    assert (check.available, check.required) == (False, False)
    parameters = tmp_path / "kvm_amd" / "parameters"
    parameters.mkdir(parents=True)
    for name, value in {"npt": "Y", "nested": "1", "sev": "N"}.items():
        (parameters / name).write_text(f"{value}\n")
    (tmp_path / "kvm").mkdir()
    check = kvm.check_modules(["nested", "npt"])
    assert check.available
    assert check.detail == "kvm_amd nested=1 npt=Y"


# What guests cannot execute


@pytest.mark.parametrize("instruction", INSTRUCTIONS, ids=[one.name for one in INSTRUCTIONS])
def test_the_code_of_an_instruction_is_what_its_assembly_says(
    instruction: Instruction, tmp_path: Path
) -> None:
    source = tmp_path / "code.S"
    source.write_text(f".intel_syntax noprefix\n.code64\n{instruction.assembly}\n")
    assert assemble(source, 0x1000) == bytes.fromhex(instruction.code)


NEVER = 1 << 27
"""OSXSAVE, which is only ever the guest's own doing."""


def test_what_a_hypervisor_cannot_execute_is_named(
    arch: AnyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = Instruction("out", 0, "mov al, 42; out 0x10, al", "b02a e610")
    tried = [
        answers,
        answers._replace(name="wrong result", code="b02b e610"),
        answers._replace(name="ud2", code="0f0b"),
        answers._replace(name="not of this processor", code="0f0b", feature=NEVER),
        answers,
    ]
    monkeypatch.setattr(instructions, "INSTRUCTIONS", tried)
    assert missing_instructions(arch) == ("wrong result", "ud2")
    check = x86_64.operating_system(arch)
    assert (check.available, check.required) == (False, False)
    assert check.detail.startswith("this hypervisor cannot execute wrong result, ud2, so a kernel")
    monkeypatch.setattr(instructions, "INSTRUCTIONS", [answers])
    assert x86_64.operating_system(arch).available


class Console:
    """What a run has to say, with nobody at a terminal."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.say = self.said.append
        self.terminal = SimpleNamespace(is_terminal=False, signal=None)


@pytest.mark.parametrize(
    ("reason", "missing", "said"),
    [
        (Reason.FAILED, ["int3"], ["vmm-arch: this hypervisor cannot execute int3, so a kernel"]),
        (Reason.FAILED, [], []),
        (Reason.POWER_OFF, ["int3"], []),
    ],
)
def test_a_run_that_fails_says_what_cannot_be_executed(
    reason: Reason, missing: list[str], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "boot", lambda *arguments: Ending(reason, 0, 1, {}))
    monkeypatch.setattr(x86_64, "missing_instructions", lambda arch: missing)
    console: Any = Console()
    options = Namespace(quiet=False, timeout=None, hypervisor="kvm", on_reset="end", on_panic="end")
    saver: Any = None
    assert run.boot_until_it_ends(options, console, saver).reason is reason
    assert [line[: len(start)] for line, start in zip(console.said, said, strict=True)] == said
