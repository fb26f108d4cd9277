"""The libraries for this Python, built before the first test that calls them."""

from __future__ import annotations

import os

import pytest
from requirements import require

from whp.build import libraries
from whp.library import FOLDER


@pytest.fixture(scope="session", autouse=True)
def _libraries() -> None:
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")
    os.environ[FOLDER] = str(libraries())
