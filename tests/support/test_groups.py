"""The groups of tests that stay in one process, since they share what is slow to make."""

from __future__ import annotations

import pytest


def test_no_test_has_lost_its_group(request: pytest.FixtureRequest) -> None:
    """Of pytest-xdist, which marks it in the test's id, where several processes test."""
    if getattr(request.config.option, "loadgroup", False):
        lost = [item.nodeid for item in request.session.items if "@" not in item.nodeid]
        assert not lost, "pytest-xdist and this version of pytest do not go together"
