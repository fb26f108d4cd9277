"""What a test needs of the machine: where it is missing the test is left out, but never in CI."""

from __future__ import annotations

import os
import sys

import pytest

PYTHON = os.environ.get("PYTHON_OF_THE_TESTS", sys.executable)
"""The command that starts this Python: one that is unpacked in a folder does not know its own."""


def require(available: bool, missing: str) -> None:
    """Skip the running test where something is missing, and fail it instead in CI."""
    if not available:
        if os.environ.get("CI"):
            pytest.fail(f"{missing}; CI leaves nothing out")
        pytest.skip(missing)
