"""How a stock Linux ends is told apart, and what becomes of a kernel that dies at once.

In the nested machine, whose processor is AMD's: after a triple fault it forgets where it was.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from images import flat_kernel
from requirements import require
from vmm_arch.x86_64.dump import AFTER_INIT
from vmm_arch_gen.fetch.debian import Unavailable
from whp.build import PLATFORM, libraries

from nested.machine import Result, provision
from nested.scenarios import PRODUCT
from nested.stock import stock_kernel, tiny_initrd

MOUNT = "/bin/busybox mount -t proc proc /proc;"
INITS = {
    "off": f"{MOUNT} poweroff -f",
    "reset": f"{MOUNT} reboot -f",
    "halt": f"{MOUNT} halt -f",
    "panic": "echo the first process ends",
    "piped": f"{MOUNT} read first; read second; echo got $first and $second; poweroff -f",
}
"""What the first process does."""
ENDINGS = {
    "off": (0, "power off by vCPU"),
    "reset": (8, "reset by vCPU"),
    "halt": (4, "halted after"),
    "panic": (7, "panic by vCPU"),
    "piped": (0, "power off by vCPU"),
}
RUN = f"VMM_ARCH_WINHVPLATFORM=whp/{PLATFORM} python3 -m vmm_arch run"
LINUX = f"{RUN} bzImage --append quiet --memory 256M --timeout 100"
DIES = bytes.fromhex("90 31 c0 ff c0 0f 0b")  # nop; xor eax, eax; inc eax; ud2
DIES_AT = 0x100000


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Result:
    try:
        machine = provision()
    except Unavailable as reason:
        require(False, str(reason))
    into = ">results/{0} 2>results/{0}.errors; echo $? >results/{0}.status".format
    commands = [f"printf 'one\\ntwo\\n' | {LINUX} --initrd {name} {into(name)}" for name in INITS]
    commands += [
        f"{LINUX} --initrd panic --hypervisor whp {into('panic-whp')}",
        f"{LINUX} --initrd halt --hypervisor whp {into('halt-whp')}",
        f"{RUN} dies {into('dies')}",
        f"{RUN} dies --single-step {into('stepped')}",
    ]
    folder = tmp_path_factory.mktemp("kernels")
    files: dict[str, bytes | Path] = {
        "vmm_arch": PRODUCT,
        "whp": libraries(),
        "bzImage": stock_kernel(),
        "dies": flat_kernel(folder / "dies", DIES),
        **{name: tiny_initrd(script) for name, script in INITS.items()},
    }
    return machine.run(files, ["sh", "-c", "\n".join(commands)], timeout=1000)


def said(ended: Result, name: str) -> tuple[int, str, str]:
    """The exit status, what the guest said and what the command said of it."""
    output, errors = (ended.files[f"{name}{kind}"].decode() for kind in ("", ".errors"))
    return int(ended.files[f"{name}.status"]), output, errors


@pytest.mark.parametrize("name", [*ENDINGS, "panic-whp", "halt-whp"])
def test_an_ending_is_told_by_status_and_name(ended: Result, name: str) -> None:
    status, output, errors = said(ended, name)
    assert (status, ENDINGS[name.partition("-")[0]][1] in errors) == (
        ENDINGS[name.partition("-")[0]][0],
        True,
    ), (
        output + errors
    )


def test_a_panic_was_one(ended: Result) -> None:
    assert "Kernel panic - not syncing: Attempted to kill init!" in said(ended, "panic")[1]


def test_a_halted_linux_is_said_to_be_halted_for_good(ended: Result) -> None:
    _, _, errors = said(ended, "halt")
    assert "vCPU 0: halted with interrupts off: nothing can wake it" in errors
    assert "every vCPU is halted with interrupts off" in errors


def test_piped_input_is_whole_though_the_driver_probes(ended: Result) -> None:
    assert "got one and two" in said(ended, "piped")[1]


def test_a_processor_that_was_reset_says_nothing_of_where_it_was(ended: Result) -> None:
    status, _, errors = said(ended, "dies")
    assert status == 3
    assert AFTER_INIT in errors
    assert "use --single-step to find the place" in errors


def test_single_steps_find_the_place(ended: Result) -> None:
    status, _, errors = said(ended, "stepped")
    assert status == 3
    places = " ".join(f"{DIES_AT + offset:#x}" for offset in (1, 3, 5))
    assert f"the last instructions were at:\n  {places}\n" in errors
    _, _, before = errors.partition("before the last instruction:\n")
    assert f"rip {DIES_AT + 5:016x}" in before
    assert "  at rip: 0f 0b" in before
