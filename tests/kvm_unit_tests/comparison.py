"""What came of a program in one machine, and whether it is the same in another."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

PASSED, SKIPPED = 1, 77
"""Exit statuses of programs, as QEMU has them: their own numbers, doubled, plus 1."""
RESET, TIMEOUT, STUCK = 0, 124, 125
"""Exit statuses where a program did not end by itself: the machine was reset (QEMU's --no-reboot),
its time was over, the hypervisor could not go on."""
CRASHED = 70
"""Exit status of a command of ours that has a fault: Python's own would be that of success."""
TRACEBACK = "Traceback (most recent call last):"
QEMU_STUCK = b"KVM internal error"
"""QEMU says so on standard error, and waits for somebody to look at it."""
GRACE = 20
"""Seconds beyond its timeout that a command may take to make its machine and to end by itself."""
_LOOKS_EVERY = 0.1
_MOST = 16 << 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended that ran a program, and what the program said."""

    status: int
    """The exit status; negative for a signal."""
    output: str
    errors: str
    seconds: float

    @property
    def verdict(self) -> str:
        named = {
            PASSED: "pass",
            SKIPPED: "skip",
            RESET: "reset",
            TIMEOUT: "timeout",
            STUCK: "stuck",
        }
        return named.get(self.status, "fail" if self.status > 0 and self.status % 2 else "error")

    def verdicts(self) -> Counter[str]:
        """How often each line with a verdict was said, whatever numbers it has.

        Numbers are left out: they are cycles, times and addresses.
        """
        lines = re.findall(
            r"^(?:PASS|FAIL|SKIP|XFAIL|KFAIL|XPASS|ABORT):.*?(?=\s*$)", self.output, re.M
        )
        return Counter(
            re.sub(r"\b(?:0x[0-9a-f]+|[0-9a-f]*\d[0-9a-f]*)\b", "#", line) for line in lines
        )

    def __str__(self) -> str:
        said = Counter(line.partition(":")[0] for line in self.verdicts().elements())
        counts = " ".join(f"{said[word]} {word}" for word in ("PASS", "FAIL", "SKIP") if said[word])
        return f"{self.verdict} ({self.status}) {counts or '-'} {self.seconds:.1f} s"


def outcome(command: Sequence[str], timeout: float) -> Outcome:
    """Run a command, and end it when its time is over or its machine is stuck."""
    start = time.monotonic()
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True
        )
        ended = None
        while ended is None:
            try:
                ended = process.wait(_LOOKS_EVERY)
            except subprocess.TimeoutExpired:
                if QEMU_STUCK in os.pread(errors.fileno(), _MOST, 0):
                    ended = STUCK
                elif time.monotonic() - start > timeout:
                    ended = TIMEOUT
        process.kill()
        process.wait()
        seconds = time.monotonic() - start
        said, complained = (os.pread(one.fileno(), _MOST, 0) for one in (output, errors))
    shown = complained.decode(errors="replace")
    if TRACEBACK in shown:
        ended = CRASHED
    return Outcome(ended, said.decode("latin-1"), shown, seconds)


def differences(ours: Outcome, theirs: Outcome) -> list[str]:
    """What is not the same, a line each."""
    found = []
    if ours.status != theirs.status:
        found.append(f"exit status {ours.status} here, {theirs.status} in QEMU")
    here, there = ours.verdicts(), theirs.verdicts()
    found += [f"here only: {_line(*item)}" for item in (here - there).items()]
    found += [f"in QEMU only: {_line(*item)}" for item in (there - here).items()]
    return found


def _line(text: str, times: int) -> str:
    return text if times == 1 else f"{text} ({times} times)"
