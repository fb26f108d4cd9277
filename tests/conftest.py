"""Fixtures that several test modules use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings
from vmm_arch_gen.project import Project, project
from vmm_arch_gen.targets import Target, TargetTable, load_targets

# In CI the same examples every time; everywhere else new ones, which is how something is found.
settings.register_profile("ci", derandomize=True, deadline=None)  # CI may be slow
if os.environ.get("CI"):
    settings.load_profile("ci")

pytest_plugins = ["backends"]

TARGETS = load_targets(project().targets_file)


@pytest.fixture(scope="session")
def checkout() -> Path:
    folder = project().checkout
    assert folder is not None, "the tests run from a checkout"
    return folder


@pytest.fixture(scope="session")
def paths() -> Project:
    return project()


@pytest.fixture(scope="session")
def table() -> TargetTable:
    return TARGETS


@pytest.fixture(params=TARGETS.targets.values(), ids=lambda target: target.name)
def target(request: pytest.FixtureRequest) -> Target:
    """Each target in turn."""
    assert isinstance(request.param, Target)
    return request.param
