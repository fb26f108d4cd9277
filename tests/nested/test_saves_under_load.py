"""Two busy vCPUs are saved and go on in a new machine, many times in a row, on stock kernels' KVM."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import saves_under_load

from nested.architecture import AMD, KERNELS
from nested.scenarios import PRODUCT
from nested.test_nested import machine_of

ROUNDS = int(os.environ.get("SAVES_UNDER_LOAD", "0"))
"""How many in place of the usual ones, which take a quarter of a minute."""


@pytest.mark.parametrize(
    ("processor", "rounds"),
    [
        pytest.param(AMD, ROUNDS or 120, marks=pytest.mark.xdist_group("saves-amd")),
        pytest.param("haswell", ROUNDS or 30, marks=pytest.mark.xdist_group("saves-intel")),
    ],
)
def test_nothing_is_lost_and_clocks_go_forward(processor: str, rounds: int) -> None:
    files: dict[str, bytes | Path] = {
        "vmm_arch": PRODUCT,
        "saves.py": Path(saves_under_load.__file__),
    }
    command = ["python3", "saves.py", str(rounds)]
    result = machine_of(processor, KERNELS[0]).run(files, command, timeout=300 + 3 * rounds)
    assert result.status == 0, result.stdout + result.stderr
    assert result.stdout.startswith(f"{rounds} rounds in ")
