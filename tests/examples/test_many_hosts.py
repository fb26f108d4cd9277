"""The example that sends a snapshot to the workers of a cluster, with a cluster of this host's."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from requirements import require


def test_it_asks_machines_of_two_workers(checkout: Path) -> None:
    require(find_spec("distributed") is not None, "dask.distributed is not installed")
    done = subprocess.run(
        [sys.executable, checkout / "examples/many_hosts.py"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "871 takes 178 steps; asked 999 machines of 2 workers\n"
