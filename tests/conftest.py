"""Fixtures that several test modules use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from vmm_arch_gen.project import Project, project
from vmm_arch_gen.targets import Target, TargetTable, load_targets

# In CI the same examples every time, and half as many; everywhere else new ones, which is how
# something is found.
settings.register_profile("ci", derandomize=True, deadline=None, max_examples=50)
# No deadlines: how long an example takes is the machine's affair, and bench's.
settings.register_profile("here", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "here")

pytest_plugins = ["backends"]

_LONGEST = ("nested", "whp")
"""The folders of those tests that take longest."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update",
        action="store_true",
        help="write the texts in tests/generator/golden anew, to be reviewed",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep together, where several processes test, what shares something that is slow to make.

    And begin with what takes longest, which is emulated: whoever is done first takes the next.
    """
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    items.sort(key=lambda item: item.path.parent.name not in _LONGEST)


TARGETS = load_targets(project().targets_file)


@pytest.fixture(scope="session")
def checkout() -> Path:
    folder = project().checkout
    assert folder is not None, "the tests run from a checkout"
    return folder


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compares a text with the one of a name in tests/generator/golden; ``--update`` writes that anew."""

    def compare(name: str, text: str) -> None:
        file = Path(__file__).parent / "generator/golden" / name
        if request.config.getoption("--update"):
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
        assert file.is_file(), f"there is no {file}: pytest --update writes it"
        assert text == file.read_text(), "if it is meant to differ: pytest --update"

    return compare


@pytest.fixture(scope="session")
def paths() -> Project:
    return project()


@pytest.fixture(scope="session")
def table() -> TargetTable:
    return TARGETS


def _name(target: Target) -> str:
    return target.name


def _first_on_each_compiler(targets: Iterable[Target]) -> Iterator[Target]:
    seen = set[tuple[str, str]]()
    for target in targets:
        if (compiler := (target.cpu, target.system)) not in seen:
            seen.add(compiler)
            yield target


def _first_of_each_family(targets: Iterable[Target]) -> Iterator[Target]:
    seen = set[str]()
    for target in targets:
        if target.family not in seen:
            seen.add(target.family)
            yield target


_COMPILERS = list(_first_on_each_compiler(TARGETS.targets.values()))
_FAMILIES = list(_first_of_each_family(TARGETS.targets.values()))


@pytest.fixture(params=TARGETS.targets.values(), ids=_name)
def target(request: pytest.FixtureRequest) -> Target:
    """Each target in turn."""
    assert isinstance(request.param, Target)
    return request.param


@pytest.fixture(params=_COMPILERS, ids=_name)
def compiler_target(request: pytest.FixtureRequest) -> Target:
    """A target for each CPU under each system: for what depends on the compiler alone."""
    assert isinstance(request.param, Target)
    return request.param


@pytest.fixture(params={t.name: t for t in (*_COMPILERS, *_FAMILIES)}.values(), ids=_name)
def sample_target(request: pytest.FixtureRequest) -> Target:
    """A target for each family, and one for each CPU under each system.

    The others' facts are much the same: a family's are, on all CPUs but for what is a CPU's.
    """
    assert isinstance(request.param, Target)
    return request.param
