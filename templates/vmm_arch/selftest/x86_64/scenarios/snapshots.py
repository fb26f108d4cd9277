"""Snapshots of a guest, whole and incremental, in memory and as files: new machines go on from each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vmm_arch.selftest.harness import agree
from vmm_arch.selftest.watchdog import Watchdog
from vmm_arch.selftest.x86_64.harness import Guest, Machine
from vmm_arch.x86_64.entry import Long64

MACHINE = Machine(Long64(0x10000), track_dirty=True)
ROUNDS = 5
HOSTS, TEXT = 0x8000, b"the host's"


def scenario(guest: Guest) -> None:
    vm = guest.vm
    load = guest.arch.Snapshot.load
    values(guest)
    with ExitStack() as stack:
        whole = stack.enter_context(vm.take_snapshot(devices={"a": [1]}))
        expected = values(guest)
        vm.memory.write(HOSTS, TEXT)
        part = stack.enter_context(vm.take_snapshot(base=whole))
        expected_then = values(guest)
        vm.close()  # before the next one is made: some hypervisors have one at a time
        folder = Path(stack.enter_context(TemporaryDirectory()))
        whole.save(folder / "whole")
        part.save(folder / "part")
        again = stack.enter_context(load(folder / "whole", verify=True))
        again_part = stack.enter_context(load(folder / "part", base=again, verify=True))
        agree("the devices in the file", again.devices, {"a": [1]})
        for name, snapshot, then, host in (
            ("the snapshot", whole, expected, bytes(len(TEXT))),
            ("the increment", part, expected_then, TEXT),
            ("the snapshot again", whole, expected, bytes(len(TEXT))),
            ("the file", again, expected, bytes(len(TEXT))),
            ("the increment's file", again_part, expected_then, TEXT),
        ):
            with forked(guest, snapshot) as other:
                agree(f"what the host wrote, in {name}", other.memory.read(HOSTS, len(TEXT)), host)
                agree(f"a machine from {name}", values(other), then)


@contextmanager
def forked(guest: Guest, snapshot: Any) -> Iterator[Guest]:
    """The guest on a machine that goes on from a snapshot."""
    with snapshot.fork() as vm, Watchdog(vm.vcpus, MACHINE.patience) as watchdog:
        yield replace(guest, vm=vm, vcpu=vm.vcpus[0], watchdog=watchdog)


def values(guest: Guest) -> list[int]:
    return [guest.sends(0x10, 4) for _ in range(ROUNDS)]
