"""What a test needs of the machine: where it is missing the test is left out, but never in CI."""

from __future__ import annotations

import os

import pytest


def require(available: bool, missing: str) -> None:
    """Skip the running test where something is missing, and fail it instead in CI."""
    if not available:
        if os.environ.get("CI"):
            pytest.fail(f"{missing}; CI leaves nothing out")
        pytest.skip(missing)
