"""``vmm-arch run --cpus``."""

from __future__ import annotations

from argparse import ArgumentTypeError

import pytest
from vmm_arch.command.cpus import Cpus, cpus
from vmm_arch.command.x86_64 import vcpus
from vmm_arch.x86_64.topology import Topology


@pytest.mark.parametrize(
    ("text", "topology"),
    [
        ("1", Topology()),
        ("4", Topology(cores=4)),
        ("4,threads=2", Topology(cores=2, threads=2)),
        ("4,cores=2", Topology(sockets=2, cores=2)),
        ("2,cores=2", Topology(cores=2)),
        ("8,sockets=2,dies=2", Topology(sockets=2, dies=2, cores=2)),
        ("sockets=3,threads=2", Topology(sockets=3, threads=2)),
    ],
)
def test_levels_that_are_not_given_follow(text: str, topology: Topology) -> None:
    assert vcpus(cpus(text)) == {"topology": topology}


def test_one_is_the_default() -> None:
    assert vcpus(None) == vcpus(Cpus()) == {"topology": Topology()}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "'' is not a number such as 4"),
        ("0", "'0' is not a number"),
        ("-1", "'-1' is not a number"),
        ("²", "'²' is not a number"),
        ("4,2", "'2': the number of vCPUs comes first"),
        ("4,cores=x", "'cores=x' is not a number"),
        ("cores=2,cores=2", "cores is there twice"),
    ],
)
def test_what_is_no_number_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ArgumentTypeError, match=problem):
        cpus(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("4,clusters=2,books=1", "no such level: clusters, books; there are sockets, dies, cores"),
        ("4,cores=3", "cores=3 are 3 vCPUs, and 4 are asked for"),
        ("2,cores=4", "cores=4 are 4 vCPUs, and 2 are asked for"),
        ("8,sockets=2,cores=2", "sockets=2,cores=2 are 4 vCPUs, and 8 are asked for"),
    ],
)
def test_what_does_not_go_together_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        vcpus(cpus(text))
