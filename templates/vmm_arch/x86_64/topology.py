"""Where a machine's vCPUs are: sockets, dies, cores and threads, and the APIC ids that follow.

An APIC id has a field for each level, of as many bits as its numbers need (Intel SDM volume 3, 10.9.2;
AMD APM volume 3, E.5): if a count is no power of two some ids are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Final

MOST_VCPUS: Final = 1 << 16
APIC_IDS: Final = range(255)
"""Those that a machine can have: xAPIC mode has eight bits, and one value stands for all."""


class TopologyError(ValueError):
    """A topology that cannot be; ``problems`` lists everything that is wrong."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("topology: " + "; ".join(problems))
        self.problems = tuple(problems)

    def __reduce__(self) -> tuple[type[TopologyError], tuple[tuple[str, ...]]]:
        return type(self), (self.problems,)


@dataclass(frozen=True, slots=True)
class Topology:
    """So many sockets, dies in each, cores in each of those, and threads in each core.

    vCPUs are numbered thread by thread, core by core. Raises TopologyError for counts that are not
    positive, or too many together.
    """

    sockets: int = 1
    dies: int = 1
    """In each socket; the next in each die, and in each core."""
    cores: int = 1
    threads: int = 1

    def __post_init__(self) -> None:
        counts = {field.name: getattr(self, field.name) for field in fields(self)}
        problems = [
            f"{name}={count!r}: expected a number from 1 on"
            for name, count in counts.items()
            if type(count) is not int or count < 1
        ]
        if not problems and self.vcpus > MOST_VCPUS:
            problems.append(f"{self.vcpus} vCPUs; give {MOST_VCPUS} at most")
        if problems:
            raise TopologyError(problems)

    @property
    def vcpus(self) -> int:
        """How many there are in all."""
        return self.sockets * self.vcpus_per_socket

    @property
    def vcpus_per_socket(self) -> int:
        return self.dies * self.cores * self.threads

    @property
    def core_shift(self) -> int:
        """How far to shift an APIC id for the number of the core. The next: of die, and of socket."""
        return (self.threads - 1).bit_length()

    @property
    def die_shift(self) -> int:
        return self.core_shift + (self.cores - 1).bit_length()

    @property
    def socket_shift(self) -> int:
        return self.die_shift + (self.dies - 1).bit_length()

    def apic_id(self, index: int) -> int:
        """The APIC id of the vCPU with this index."""
        core, thread = divmod(index, self.threads)
        die, core = divmod(core, self.cores)
        socket, die = divmod(die, self.dies)
        return (
            socket << self.socket_shift | die << self.die_shift | core << self.core_shift | thread
        )

    @property
    def apic_ids(self) -> list[int]:
        """The APIC ids by index, in ascending order."""
        return [self.apic_id(index) for index in range(self.vcpus)]

    def __str__(self) -> str:
        return ",".join(f"{name}={count}" for name, count in asdict(self).items())


def machine_topology(topology: Topology | None, vcpus: int) -> Topology:
    """The topology of a machine for which so many vCPUs, or this topology, are asked for.

    By default each vCPU is a core of one socket. Raises TopologyError if the two contradict each other;
    one vCPU, which is what is asked for by default, contradicts nothing.
    """
    if topology is None:
        if type(vcpus) is not int or not 0 < vcpus <= len(APIC_IDS):
            raise ValueError(f"vcpus={vcpus}: this host allows 1 to {len(APIC_IDS)}")
        return Topology(cores=vcpus)
    if not isinstance(topology, Topology):
        raise TypeError(f"topology: expected Topology, got {type(topology).__name__}")
    if vcpus not in (1, topology.vcpus):
        raise TopologyError([f"{topology} has {topology.vcpus} vCPUs, and {vcpus} are asked for"])
    if topology.apic_ids[-1] not in APIC_IDS:
        highest = topology.apic_ids[-1]
        raise TopologyError(
            [f"{topology} has APIC ids to {highest}; {APIC_IDS[-1]} is the last one"]
        )
    return topology
