"""The server for gdb and clients that are no gdb: broken, vanishing, hostile."""

from __future__ import annotations

import os
import random
import re
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from queue import Queue
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from requirements import require
from vmm_arch.breakpoint import HardwareBreakpoint, On
from vmm_arch.debug.commands import _HANDLERS, Commands
from vmm_arch.debug.cpu import Abilities
from vmm_arch.debug.monitor import Monitor
from vmm_arch.debug.packets import packet
from vmm_arch.debug.points import Kind, Point, Points
from vmm_arch.debug.stop import Detach, Kill, Resume, Signal, Stop
from vmm_arch.exits import Breakpoint
from vmm_arch.selftest.x86_64.harness import AnyBackend
from vmm_arch.x86_64 import gdb
from vmm_arch.x86_64.bus import Bus
from vmm_arch.x86_64.entry import Long64
from vmm_arch.x86_64.gdb_server import GdbServer

LATE = 20
# 1: inc qword [0x3000]; in al, 0x10; cmp al, 0; je 1b; ud2
COUNTS = bytes.fromhex("48 ff 04 25 00 30 00 00 e4 10 3c 00 74 f2 0f 0b")


class Client:
    """Speaks the protocol, and says whatever it is told to."""

    def __init__(self, server: GdbServer) -> None:
        self.socket = socket.create_connection(server.address, timeout=LATE)
        self._received = b""

    def send(self, *contents: bytes) -> None:
        self.socket.sendall(b"".join(map(packet, contents)))

    def answer(self) -> bytes:
        """The next packet; empty bytes at the end."""
        while not (found := re.search(rb"\$([^#]*)#..", self._received)):
            more = self.socket.recv(0x10000)
            if not more:
                return b""
            self._received += more
        self._received = self._received[found.end() :]
        self.socket.sendall(b"+")
        return found[1]

    def ask(self, content: bytes) -> bytes:
        self.send(content)
        return self.answer()


class Ports:
    """What the guest reads from port 0x10."""

    value = 0

    def read(self, offset: int, size: int) -> int:
        return self.value

    def write(self, offset: int, size: int, value: int) -> None: ...


class Machine:
    """A guest that counts at 0x3000 until a port says something else; then a triple fault."""

    def __init__(self, arch: AnyBackend, vm: Any, **options: Any) -> None:
        self.vm, self.ports, self.said = vm, Ports(), Queue[str]()
        bus = Bus()
        bus.attach_ports(range(0x10, 0x11), self.ports)
        vm.memory.write(0x1000, COUNTS)
        entry = Long64(0x1000, rsp=0x8000)
        arch.configure_system(vm, entry)
        for vcpu in vm.vcpus:
            arch.configure_vcpu(vcpu, entry)
        self.server = GdbServer(vm, bus, say=self.said.put, **options)
        self.bus = bus
        self.ending: Any = None
        self.thread = threading.Thread(target=self._run, args=(arch,))
        self.thread.start()

    def _run(self, arch: AnyBackend) -> None:
        try:
            serve: Any = arch.serve  # type: ignore[attr-defined]
            self.ending = serve(self.vm, self.bus, debugger=self.server, timeout=60)
        finally:
            self.server.close(3)

    def count(self) -> int:
        return int.from_bytes(self.vm.memory.read(0x3000, 8), "little")

    def runs(self) -> bool:
        """Whether it counts."""
        before, waited = self.count(), threading.Event()
        for _ in range(100):
            if self.count() != before:
                return True
            waited.wait(0.01)
        return False


@pytest.fixture
def start(arch: AnyBackend) -> Iterator[Callable[..., Machine]]:
    machines: list[Machine] = []
    opened: list[Any] = []

    def make(vcpus: int = 1, **options: Any) -> Machine:
        memory = arch.GuestMemory(4 << 20)
        vm = arch.Vm(memory, vcpus=vcpus)
        opened.extend((memory, vm))
        machines.append(Machine(arch, vm, **options))
        return machines[-1]

    yield make
    for machine in machines:
        machine.bus.stop()
        machine.thread.join(LATE)
        assert not machine.thread.is_alive()
    for thing in reversed(opened):
        thing.close()


def test_the_guest_waits_and_the_client_asks(start: Callable[..., Machine]) -> None:
    machine = start()
    with closing(Client(machine.server).socket):
        pass  # somebody who looks whether there is a server
    assert machine.count() == 0
    client = Client(machine.server)
    assert b"PacketSize=" in client.ask(b"qSupported:swbreak+;hwbreak+")
    assert client.ask(b"QStartNoAckMode") == b"OK"
    assert client.ask(b"?") == b"T05thread:1;"
    assert client.ask(b"m1000,4") == b"48ff0425"
    assert client.ask(b"M3008,2:abcd") == b"OK"
    assert client.ask(b"X3008,3:#$}") == b"OK"
    assert machine.vm.memory.read(0x3008, 3) == b"#$}"
    assert client.ask(b"qemu.PhyMemMode") == b""
    assert client.ask(b"qqemu.PhyMemMode") == b"0"
    assert client.ask(b"mffffffff80000000,4") == b"E0e"
    assert client.ask(b"Qqemu.PhyMemMode:1") == b"OK"
    assert client.ask(b"m3ffffe,4") == b"E0e"
    assert client.ask(b"m1000,2") == b"48ff"
    assert client.ask(b"qThreadExtraInfo,1") == b"vCPU 0".hex().encode()
    assert client.ask(b"T2") == b"E16"
    assert client.ask(b"p10") == bytes.fromhex("0010000000000000").hex().encode()
    assert client.ask(b"P10=0110000000000000") == b"OK"
    assert client.ask(b"P10=00100000") == b"E16"
    assert client.ask(b"vMustReplyEmpty") == b""


def test_a_client_that_vanishes_leaves_the_guest_as_it_was(start: Callable[..., Machine]) -> None:
    machine = start()
    client = Client(machine.server)
    client.ask(b"?")
    client.ask(b"Z0,1000,1")
    client.socket.close()  # the guest is stopped, and remains so
    assert machine.said.get(timeout=LATE) == "gdb is connected"
    assert "the guest waits for the next one" in machine.said.get(timeout=LATE)
    assert machine.count() == 0
    client = Client(machine.server)
    client.ask(b"?")
    client.send(b"c")
    assert machine.runs()  # over the former client's breakpoint
    client.socket.close()
    assert machine.said.get(timeout=LATE) == "gdb is connected"
    assert machine.said.get(timeout=LATE) == "gdb has gone without detaching"
    assert machine.runs()
    client = Client(machine.server)
    assert client.ask(b"?").startswith(b"T05")  # a client stops it
    assert not machine.runs()


def test_whoever_is_no_debugger_is_sent_away(start: Callable[..., Machine]) -> None:
    """A page in a browser can have it send a request, with packets in it."""
    machine = start(wait=False)
    client = Client(machine.server)
    client.socket.sendall(b"POST / HTTP/1.1\r\n\r\n" + packet(b"k"))
    assert client.answer() == b""
    assert machine.runs()
    assert machine.said.empty()


def test_a_guest_that_cannot_continue_is_shown_and_then_ends(start: Callable[..., Machine]) -> None:
    machine = start()
    client = Client(machine.server)
    client.ask(b"?")
    machine.ports.value = 1
    assert client.ask(b"vCont;c") == b"T0bthread:1;"
    assert client.ask(b"m3000,1") == b"01"
    assert client.ask(b"vCont;c") == b"W03"
    machine.thread.join(LATE)
    assert machine.ending.reason == "shutdown"


def test_one_vcpu_runs_alone_until_it_is_interrupted(start: Callable[..., Machine]) -> None:
    machine = start(2)
    client = Client(machine.server)
    client.ask(b"?")
    client.send(b"vCont;c:2")
    assert machine.runs()
    client.socket.sendall(b"\x03")
    assert client.answer() == b"T02thread:2;"
    assert client.ask(b"Hg1") == b"OK"
    assert client.ask(b"p10") == (0x1000).to_bytes(8, "little").hex().encode()  # as it began
    machine.ports.value = 1
    assert client.ask(b"vCont;c:2") == b"T0bthread:2;"
    assert client.ask(b"vCont;c:1") == b"W03"
    machine.thread.join(LATE)
    assert machine.ending.reason == "shutdown"


def test_the_guest_is_reset_if_the_user_wants_it(start: Callable[..., Machine]) -> None:
    machine = start()
    client = Client(machine.server)
    client.ask(b"?")
    assert b"the guest is reset" in bytes.fromhex(
        client.ask(b"qRcmd," + b"reset".hex().encode()).decode()
    )
    assert client.ask(b"c") == b"W03"
    machine.thread.join(LATE)
    assert machine.ending.reason == "reset"


def test_a_flood_of_packets_ends_the_connection(start: Callable[..., Machine]) -> None:
    machine = start()
    client = Client(machine.server)
    client.ask(b"?")
    client.send(b"c")
    with pytest.raises(OSError):  # noqa: PT011 - reset, or a broken pipe
        client.send(*[b"g"] * 1_000_000)
    assert machine.runs()


def test_in_a_process_with_many_descriptors(start: Callable[..., Machine]) -> None:
    """More than select() takes: a pool of machines has that many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    require(hard > 2048, "the limit of descriptors is too low")
    opened = [os.dup(0) for _ in range(1100)]
    try:
        machine = start()
        assert Client(machine.server).ask(b"?") == b"T05thread:1;"
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


GRAMMAR = st.builds(
    lambda letter, rest: letter + rest,
    st.sampled_from([*_HANDLERS, b"vCont;", b"vKill;", b"qXfer:features:read:target.xml:", b"qRcmd,",
                     b"qThreadExtraInfo,", b"Hg", b"Hc", b"Z0,", b"Z2,", b"Qqemu.PhyMemMode:", b"R"]),
    st.one_of(
        st.binary(max_size=12),
        st.text("0123456789abcdef,:;-.csCS=", max_size=24).map(str.encode),
    ),
)  # fmt: skip


@pytest.fixture
def machine(arch: AnyBackend) -> Iterator[Any]:
    with arch.GuestMemory(4 << 20) as memory, arch.Vm(memory, vcpus=2) as vm:
        entry = Long64(0x1000, rsp=0x8000)
        arch.configure_system(vm, entry)
        for vcpu in vm.vcpus:
            arch.configure_vcpu(vcpu, entry)
        yield vm


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(GRAMMAR, max_size=20))
def test_any_packet_has_an_answer(machine: Any, packets: list[bytes]) -> None:
    points = Points(machine, gdb, Abilities())
    commands = Commands(
        machine, gdb, points, Monitor(machine, gdb, lambda: None), "x86-64", can_step=True
    )
    commands.stopped(Stop(0, Signal.TRAP))
    for content in packets:
        answer = commands.answer(content)
        assert isinstance(answer, bytes | Resume | Detach | Kill)
        if isinstance(answer, bytes):
            assert len(packet(answer)) < 0x10000
    points.apply()
    points.withdraw()
    points.clear()


def test_seeded_garbage_never_ends_the_machine(start: Callable[..., Machine]) -> None:
    """Whole conversations, mutated."""
    machine = start(wait=False)
    chance = random.Random(1)
    talk = [
        b"qSupported:swbreak+;hwbreak+",
        b"?",
        b"g",
        b"m1000,40",
        b"Z1,1000,1",
        b"vCont;c",
        b"s",
    ]
    for _ in range(60):
        said = bytearray(b"+" + b"".join(map(packet, chance.choices(talk, k=5))))
        for _ in range(chance.randrange(1, 6)):
            said[chance.randrange(1, len(said))] = chance.choice(b"$#}+-\x03:;,0fZ")
        if b"$k" in said or b"$vKill" in said:
            continue
        client = Client(machine.server)
        client.socket.sendall(said)
        client.socket.close()
    client = Client(machine.server)
    assert client.ask(b"?").startswith(b"T05")
    client.send(b"c")
    assert machine.runs()


# Points, and what is said about them


def test_where_points_go(machine: Any) -> None:
    """The processor's own first; the fifth is in memory, while the guest runs."""
    points = Points(machine, gdb, Abilities())
    if points._most == 0:
        return
    memory = machine.memory
    for index in range(4):
        points.insert(Point(Kind.SOFTWARE, 0x1000 + index, 1), 0x1000 + index)
    points.apply()
    assert memory.read(0x1000, 8) == bytes(8)
    points.insert(Point(Kind.WRITE, 0x3001, 3), None)  # two pieces
    points.apply()
    assert memory.read(0x1000, 4).count(0xCC) == 2
    points.withdraw()
    assert memory.read(0x1000, 4) == bytes(4)
    points.insert(Point(Kind.ACCESS, 0x4000, 16), None)
    with pytest.raises(ValueError, match="the processor has 4 breakpoints and watchpoints"):
        points.insert(Point(Kind.READ, 0x5000, 1), None)
    with pytest.raises(ValueError, match="0x9000 is not mapped, or has no memory"):
        points.insert(Point(Kind.SOFTWARE, 0x9000, 1), None)
    points.remove(Point(Kind.WRITE, 0x3001, 3))
    points.clear()
    points.apply()
    assert memory.read(0x1000, 4) == bytes(4)


def test_pieces_of_a_watched_interval() -> None:
    pieces = [(one.address, one.length) for one in gdb.watched(0x1001, 15, On.WRITE)]
    assert pieces == [(0x1001, 1), (0x1002, 2), (0x1004, 4), (0x1008, 8)]


def test_replies_about_stops() -> None:
    watch = Point(Kind.READ, 0x1234, 4)
    assert Stop(1, Signal.TRAP, watch).reply(True) == b"T05thread:2;rwatch:1234;"
    assert Stop(0, Signal.TRAP, software=True).reply(True) == b"T05thread:1;swbreak:;"
    assert Stop(0, Signal.TRAP, software=False).reply(False) == b"T05thread:1;"


def test_the_tag_word_of_the_x87(machine: Any) -> None:
    names = [register.name for register in gdb.X86_64._registers]
    vcpu = machine.vcpus[0]
    for wanted in (0xFFFF, 0x0000, 0xFF3F):
        gdb.X86_64.write(vcpu, {names.index("ftag"): wanted.to_bytes(4, "little")})
        value = gdb.X86_64.read(vcpu)[names.index("ftag")]
        assert int.from_bytes(value, "little") == wanted


@pytest.mark.parametrize("architecture", gdb.ARCHITECTURES.values(), ids=gdb.ARCHITECTURES)
def test_all_registers_can_be_written_back(machine: Any, architecture: Any) -> None:
    vcpu = machine.vcpus[0]
    before = architecture.read(vcpu)
    changed = [before[0][:-1] + b"\x12", *before[1:]]
    architecture.write(vcpu, dict(enumerate(changed)))
    assert architecture.read(vcpu) == changed
    assert [len(value) for value in changed] == architecture.sizes
    assert architecture.description.count("<reg ") == len(changed)
    index = [register.name for register in architecture._registers].index("cs")
    with pytest.raises(ValueError, match="cs cannot be set"):
        architecture.write(vcpu, {0: before[0], index: bytes(4)})
    assert architecture.read(vcpu) == changed


def test_what_an_exit_is_to_the_debugger(machine: Any) -> None:
    """Watchpoints and INT3, which not every host of these tests reports by itself."""
    server = GdbServer(machine, Bus(), wait=False)
    ignored: list[object] = []
    try:
        server._points._most = 4
        server._points.insert(Point(Kind.READ, 0x3001, 3), None)
        watched = gdb.watched(0x3001, 3, On.ACCESS)[1]
        assert server._reason_to_stop(1, Breakpoint(0x1000, watched)) == Stop(
            1, Signal.TRAP, Point(Kind.READ, 0x3001, 3)
        )
        placed = HardwareBreakpoint(0x1000)
        assert server._reason_to_stop(0, Breakpoint(0x1000, placed)) == Stop(
            0, Signal.TRAP, software=False
        )
        own = Breakpoint(0x1000, None, lambda exit, value: ignored.append(exit))
        assert server._reason_to_stop(0, own) is None
        assert ignored == [own]
        server._points._points.clear()
        server._points._most = 0
        server._points.insert(Point(Kind.SOFTWARE, 0x1000, 1), 0x1000)
        server._points.apply()
        assert server._reason_to_stop(0, own) == Stop(0, Signal.TRAP, software=True)
        server._points.withdraw()
        server._points._points.clear()
    finally:
        server.close()
