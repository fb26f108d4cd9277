"""``vm.reset_to(snapshot)``: afterwards the machine is as the snapshot says, whatever was done to it.

``RANDOM_RESETS=5000 pytest -k random_guests`` tries more guests than a usual run.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from backends import BackendUnderTest
from vmm_arch.errors import (
    ClosedError,
    HypervisorError,
    StateError,
    UnansweredError,
    UnfinishedResetError,
)
from vmm_arch.exits import Halt, MmioRead
from vmm_arch.memory import Region
from vmm_arch.selftest.x86_64.harness import AnyBackend
from vmm_arch.x86_64.entry import Long64, RealMode
from vmm_arch.x86_64.exits import IoIn, IoOut
from vmm_arch.x86_64.platform.memory_map import GuestMemory

CODE, DATA = 0x1000, 0x8000
REGIONS = [Region(0, 0x10_0000), Region(0x10_0000, 0x4000), Region(0x20_0000, 0x4000)]
"""Two that are adjacent, and one with a hole before it."""
GUESTS = int(os.environ.get("RANDOM_RESETS", "100"))
Make = Callable[..., Any]


@pytest.fixture
def make(arch: AnyBackend) -> Iterator[Make]:
    """Make a machine that is about to execute code, and tracks what is written."""
    made: list[Any] = []

    def machine(code: bytes = b"\xf4", entry: Any = None, **arguments: Any) -> Any:
        memory = GuestMemory(REGIONS)
        memory.write(CODE, code)
        made.append(arch.Vm(memory, **{"track_dirty": True, **arguments}))
        entry = entry or RealMode(CODE)
        arch.configure_system(made[-1], entry)
        for vcpu in made[-1].vcpus:
            if not vcpu.is_secondary:
                arch.configure_vcpu(vcpu, entry)
        return made[-1]

    yield machine
    for vm in made:
        vm.close()


def contents(memory: GuestMemory) -> list[bytes]:
    return [memory.read(region.address, region.size) for region in memory.regions]


@contextmanager
def unchanged(vm: Any) -> Iterator[Any]:
    """Take a snapshot, and look in the end whether the machine is like it."""
    snapshot, before = vm.take_snapshot(), contents(vm.memory)
    yield snapshot
    assert contents(vm.memory) == before
    assert str(snapshot.state.diff(vm.save())) == "no differences"


WRITES = bytes.fromhex(
    "c606008011"  # mov byte ptr [0x8000], 0x11
    "66b8efbeadde"  # mov eax, 0xdeadbeef
    "f4"  # hlt
)


def test_what_a_guest_wrote_is_written_back(make: Make) -> None:
    vm = make(WRITES)
    with unchanged(vm) as snapshot:
        for _ in range(3):
            assert isinstance(vm.vcpus[0].run(), Halt)
            assert vm.memory.read(DATA, 1) == b"\x11"
            assert vm.vcpus[0].get_regs().rax == 0xDEADBEEF
            vm.reset_to(snapshot)
            assert vm.memory.read(DATA, 1) == b"\0"
            assert vm.vcpus[0].get_regs().rax == 0
        vm.reset_to(snapshot)
        vm.reset_to(snapshot)


def test_registers_of_a_reset_can_be_changed_before_the_run(make: Make) -> None:
    """A hypervisor may take them only when the vCPU is entered."""
    vm = make(bytes.fromhex("e610 f4"))  # out 0x10, al
    snapshot = vm.take_snapshot()
    vcpu = vm.vcpus[0]
    for value in (0x11, 0x22):
        vcpu.run()
        vm.reset_to(snapshot)
        regs = vcpu.get_regs()
        assert (regs.rax, regs.rip) == (0, CODE)
        regs.rax = value
        vcpu.set_regs(regs)
        exit = vcpu.run()
        assert isinstance(exit, IoOut)
        assert exit.data == bytes([value])


@pytest.mark.parametrize("access", ["write", "view", "old view", "slice", "file"])
def test_what_the_host_wrote_is_written_back(make: Make, access: str) -> None:
    vm = make()
    memory = vm.memory
    old = memory.view(0x20_1000, 0x800)
    with unchanged(vm) as snapshot:
        for _ in range(3):
            match access:
                case "write":
                    memory.write(0xF_FFFE, b"abcd")  # in two regions
                    memory.write(DATA, bytes([5]) * 0x3000)
                case "view":
                    with memory.view(0x2FFF, 2) as view:
                        view[:] = b"ab"
                case "old view":
                    old[0x100] = 7
                case "slice":
                    part = old[1:]
                    old.release()
                    vm.reset_to(snapshot)
                    part[3] = 9
                    old = part
                case "file":
                    with open(__file__, "rb") as file, memory.view(0x10_1FF0, 0x100) as view:
                        assert file.readinto(view)
            assert contents(memory) != contents_of(snapshot)
            vm.reset_to(snapshot)
            assert contents(memory) == contents_of(snapshot)
    old.release()


def contents_of(snapshot: Any) -> list[bytes]:
    whole = snapshot.memory.whole
    data = os.pread(whole.descriptor, whole.size, whole.offset)
    found = []
    for region in REGIONS:
        found.append(data[: region.size])
        data = data[region.size :]
    return found


@pytest.mark.parametrize(
    "code",
    [
        "e610",  # out 0x10, al
        "e410",  # in al, 0x10
        "bf0080 b90400 ba1000 f36c",  # mov di, 0x8000; mov cx, 4; mov dx, 0x10; rep insb
        "be0010 b90400 ba1000 f36e",  # mov si, 0x1000; mov cx, 4; mov dx, 0x10; rep outsb
        "b800f0 8ed8 a10000",  # mov ax, 0xf000; mov ds, ax; mov ax, [0]: memory
        "b8ffff 8ed8 a1f0ff",  # mov ax, 0xffff; mov ds, ax; mov ax, [0xfff0]: 0x10ffe0
        "b8ffff 8ed8 a3f0ff",  # mov [0xfff0], ax
        "b8ffff 8ed8 0106f0ff",  # add [0xfff0], ax: read, and written
    ],
)
@pytest.mark.parametrize("again", [False, True])
def test_a_pending_exit_is_discarded(make: Make, code: str, again: bool) -> None:
    """At the instruction that made it, too, which is then executed from the beginning."""
    vm = make(bytes.fromhex(code + "f4 ebfd"))  # end: hlt; jmp end
    vcpu = vm.vcpus[0]
    with unchanged(vm) as snapshot:
        first = None
        for _ in range(4):
            exit = vcpu.run()
            shown = repr(exit)
            assert first in (None, shown)
            first = shown
            if again and isinstance(exit, IoIn | MmioRead):
                exit.complete(bytes(exit.size * exit.count))
            if again:
                vcpu.run()
            vm.reset_to(snapshot)


def test_a_snapshot_at_an_exit(make: Make) -> None:
    """The guest goes on behind the instruction that made it, not at it."""
    vm = make(bytes.fromhex("40 e610 ebfb"))  # again: inc ax; out 0x10, al; jmp again
    vcpu = vm.vcpus[0]
    assert vcpu.run().data == b"\x01"
    snapshot = vm.take_snapshot()
    for _ in range(5):
        assert vcpu.run().data == b"\x02"
        vm.reset_to(snapshot)
    assert vcpu.run().data == b"\x02"
    assert vcpu.run().data == b"\x03"


def test_dirty_pages_forget_what_was_written_before(make: Make) -> None:
    vm = make(WRITES)
    snapshot = vm.take_snapshot()
    vm.dirty_pages()
    vm.vcpus[0].run()
    vm.reset_to(snapshot)
    assert vm.dirty_pages() == []
    vm.vcpus[0].run()
    assert DATA in vm.dirty_pages()
    vm.reset_to(snapshot)
    assert vm.memory.read(DATA, 1) == b"\0"


def test_snapshots_in_turn(make: Make) -> None:
    """Also increments: to and fro, and after one between is closed."""
    vm = make(WRITES)
    vm.memory.write(DATA + 0x2000, b"first")
    first = vm.take_snapshot()
    vm.memory.write(DATA + 0x2000, b"second")
    vm.memory.write(0x20_2000, b"second")
    second = vm.take_snapshot(base=first)
    vm.memory.write(DATA + 0x3000, b"third")
    third = vm.take_snapshot(base=second)
    vm.memory.write(DATA + 0x4000, b"other")
    other = vm.take_snapshot()
    every = [first, second, third, other]
    expected = [contents_of(snapshot) for snapshot in every]
    chance = random.Random(4)
    for turn in range(40):
        at = chance.randrange(4) if turn < 30 else chance.choice([0, 2, 3])
        if turn == 30:
            second.close()
        vm.vcpus[0].run()
        vm.memory.write(chance.choice([DATA + 0x5000, 0x20_0000]), b"x")
        vm.reset_to(every[at])
        assert contents(vm.memory) == expected[at]
        assert every[at].state == vm.save()


def test_another_machines_snapshot(make: Make, arch: AnyBackend) -> None:
    """Of one that was made alike: all memory is compared, once."""
    if arch.MACHINES_PER_PROCESS == 1:
        vm = make(WRITES)
        snapshot = vm.take_snapshot()
        vm.close()
    else:
        snapshot = make(WRITES).take_snapshot()
    vm = make(b"\x90" * 100 + WRITES)
    vm.memory.write(0x20_0000, b"other")
    for _ in range(3):
        vm.vcpus[0].run()
        vm.reset_to(snapshot)
        assert contents(vm.memory) == contents_of(snapshot)
        assert snapshot.state == vm.save()


def test_a_fork_is_reset(make: Make, arch: AnyBackend) -> None:
    vm = make(WRITES)
    snapshot = vm.take_snapshot()
    vm.close()
    with snapshot.fork() as fork:
        for _ in range(3):
            fork.vcpus[0].run()
            fork.reset_to(snapshot)
            assert contents(fork.memory) == contents_of(snapshot)
            assert snapshot.state == fork.save()


class TestRefusals:
    def test_named_before_anything_is_changed(self, make: Make, arch: AnyBackend) -> None:
        vm = make(WRITES, vcpus=2)
        snapshot = vm.take_snapshot()
        vm.close()
        vm = make(WRITES)
        vm.vcpus[0].run()
        before, state = contents(vm.memory), vm.save()
        for wrong, error, message in (
            (snapshot, StateError, "with other vcpus: 2, and not 1"),
            (state, TypeError, "expected Snapshot, got VmState"),
            (vm.take_snapshot(), ValueError, "unchanged: no such group: 'mmx'; the groups are "),
        ):
            with pytest.raises(error, match=message):
                vm.reset_to(wrong, unchanged=["fpu", "mmx"] if error is ValueError else [])
        assert contents(vm.memory) == before
        assert vm.save() == state

    def test_memory_is_laid_out_otherwise(self, make: Make, arch: AnyBackend) -> None:
        vm = make(WRITES)
        snapshot = vm.take_snapshot()
        vm.close()
        with (
            GuestMemory(0x10_0000) as memory,
            arch.Vm(memory, track_dirty=True) as other,
            pytest.raises(StateError, match="the snapshot is of a machine with other regions"),
        ):
            other.reset_to(snapshot)

    def test_another_cpuid(self, make: Make, arch: AnyBackend) -> None:
        vm = make(WRITES)
        snapshot = vm.take_snapshot()
        vm.close()
        other = make(WRITES, cpuid=arch.supported_cpuid()[:3])
        with pytest.raises(StateError, match="other cpuid"):
            other.reset_to(snapshot)

    def test_untracked(self, make: Make) -> None:
        vm = make(WRITES, track_dirty=False)
        snapshot = vm.take_snapshot()
        with pytest.raises(HypervisorError, match=r"reset_to: .* without track_dirty"):
            vm.reset_to(snapshot)

    def test_closed(self, make: Make) -> None:
        vm = make(WRITES)
        snapshot = vm.take_snapshot()
        vm.reset_to(snapshot)
        snapshot.close()
        with pytest.raises(ClosedError, match="the snapshot is closed"):
            vm.reset_to(snapshot)
        vm.vcpus[0].run()
        snapshot = vm.take_snapshot()
        vm.close()
        with pytest.raises(ClosedError, match="the machine is closed"):
            vm.reset_to(snapshot)

    def test_a_refusal_in_the_middle(
        self, make: Make, backend: BackendUnderTest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """At any call: the machine says what it is, until a reset succeeds."""
        vm = make(WRITES, irqchip=True)
        vcpu = vm.vcpus[0]
        calls: list[str] = []
        fails = 0

        def refuse(name: str) -> None:
            calls.append(name)
            if len(calls) == fails:
                raise backend.no_memory()

        with unchanged(vm) as snapshot:
            vm.reset_to(snapshot)
            while len(calls) >= fails:
                fails += 1
                run_to_halt(vcpu)
                calls.clear()
                with monkeypatch.context() as patch:
                    backend.before_calls(patch, refuse)
                    with suppress(HypervisorError):
                        vm.reset_to(snapshot)
                if len(calls) == fails:
                    for use in (vcpu.run, vcpu.get_regs, vcpu.save, vm.save, vm.take_snapshot):
                        with pytest.raises(UnfinishedResetError, match="call it again, or close"):
                            use()
                    with pytest.raises(UnfinishedResetError):
                        vm.restore(snapshot.state)
                vm.reset_to(snapshot)
            assert fails > 3


def run_to_halt(vcpu: Any) -> None:
    """With an irqchip HLT is no exit."""
    timer = threading.Timer(0.02, vcpu.kick)
    timer.start()
    vcpu.run()
    timer.join()


class RandomGuest:
    """Code of 64-bit mode that changes whatever a guest can change, without much sense."""

    MSRS = (
        *(0x10, 0x3B, 0x174, 0x175, 0x176, 0x1A0, 0x1D9, 0x200, 0x201, 0x250, 0x277, 0x2FF),
        *(0x400, 0x401, 0x402, 0x6E0, 0x17A, 0xDA0, 0x4B564D00, 0x4B564D01, 0x4B564D02),
        *(0xC0000080, 0xC0000081, 0xC0000082, 0xC0000083, 0xC0000084, 0xC0000100, 0xC0000101),
        *(0xC0000102, 0xC0000103, 0xC0010015, 0x11, 0x12),
    )

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def code(self) -> bytes:
        actions = (
            *(self._msr, self._debug, self._fpu, self._memory, self._control, self._tables),
            *(self._flags, self._xcr, self._registers, self._ports, self._junk),
        )
        chosen = self._chance.choices(actions, k=self._chance.randrange(1, 12))
        return b"".join(action() for action in chosen) + self._end()

    def _value(self) -> int:
        value = self._chance.choice([0, 1, 6, 0x806, DATA | 1, 1 << 63, 0xFFFF_FFFF, None])
        return (
            self._chance.getrandbits(self._chance.choice([8, 32, 47, 64]))
            if value is None
            else value
        )

    def _rax(self, value: int) -> bytes:
        return b"\x48\xb8" + value.to_bytes(8, "little")

    def _pair(self, value: int) -> bytes:  # edx and eax
        low, high = value & 0xFFFF_FFFF, value >> 32
        return b"\xb8" + low.to_bytes(4, "little") + b"\xba" + high.to_bytes(4, "little")

    def _msr(self) -> bytes:
        msr = self._chance.choice(self.MSRS)
        return b"\xb9" + msr.to_bytes(4, "little") + self._pair(self._value()) + b"\x0f\x30"

    def _debug(self) -> bytes:
        number = self._chance.choice([0, 1, 2, 3, 6, 7])
        value = self._value() & (0xFFFF_DFFF if number > 3 else -1 & (1 << 64) - 1)
        return self._rax(value) + bytes([0x0F, 0x23, 0xC0 | number << 3])

    def _fpu(self) -> bytes:
        number = self._chance.randrange(8) << 3
        return self._chance.choice(
            [
                b"\xd9\xeb",  # fldpi
                b"\xdb\xe3",  # fninit
                self._rax(self._value()) + bytes([0x66, 0x48, 0x0F, 0x6E, 0xC0 | number]),  # xmm
                b"\xc7\x04\x25\0\x80\0\0\x80\x1f\0\0\x0f\xae\x14\x25\0\x80\0\0",  # ldmxcsr
            ]
        )

    def _memory(self) -> bytes:
        address = self._chance.randrange(0, 0x20_4000 - 8).to_bytes(4, "little")
        return self._rax(self._value()) + b"\x48\x89\x04\x25" + address

    def _control(self) -> bytes:
        move = self._chance.choice(
            [b"\x0f\x22\xd0", b"\x44\x0f\x22\xc0", b"\x0f\x22\xe0", b"\x0f\x22\xc0"]
        )
        bits = {b"\x44\x0f\x22\xc0": 0xF}.get(move, (1 << 64) - 1)
        if move in (b"\x0f\x22\xe0", b"\x0f\x22\xc0"):  # cr4, cr0: one bit of what is there
            read = b"\x0f\x20" + move[2:]
            return read + b"\x0d" + (1 << self._chance.randrange(31)).to_bytes(4, "little") + move
        return self._rax(self._value() & bits) + move

    def _tables(self) -> bytes:
        load = self._chance.choice([b"\x0f\x01\x14\x25", b"\x0f\x01\x1c\x25"])  # lgdt, lidt
        return load + DATA.to_bytes(4, "little") + self._chance.choice([b"", b"\x0f\x01\xf8"])

    def _flags(self) -> bytes:
        pushed = self._chance.getrandbits(12) & ~0x100 | 2
        return self._chance.choice(
            [b"\xfb", b"\xfa", b"\x68" + pushed.to_bytes(4, "little") + b"\x9d"]
        )

    def _xcr(self) -> bytes:
        enable = b"\x0f\x20\xe0\x0d\0\0\x04\0\x0f\x22\xe0"  # cr4.OSXSAVE
        return (
            enable + b"\xb9\0\0\0\0" + self._pair(self._chance.choice([1, 3, 7])) + b"\x0f\x01\xd1"
        )

    def _registers(self) -> bytes:
        number = self._chance.choice([0, 1, 2, 3, 6, 7])
        return bytes([0x48, 0xB8 | number]) + self._value().to_bytes(8, "little")

    def _ports(self) -> bytes:
        return self._chance.choice([b"\xe6\x10", b"\xe4\x10"])

    def _junk(self) -> bytes:
        return self._chance.randbytes(self._chance.choice([0, 0, 0, 0, 3]))

    def _end(self) -> bytes:
        return self._chance.choice(
            [
                *(
                    b"\xf4",
                    b"\xfb\xf4",
                    b"\xe6\x10",
                    b"\xe4\x10",
                    b"\xcc",
                    b"\x0f\x0b",
                    b"\xeb\xfe",
                ),
                b"\x48\xb8\0\0\0\x20\0\0\0\0\x48\x8b\x18",  # mov rbx, [0x20000000]
                b"\x48\xb8\0\0\0\x20\0\0\0\0\x48\x01\x18",  # add [0x20000000], rbx
                b"\xbf\0\x80\0\0\xb9\3\0\0\0\xba\x10\0\0\0\xf3\x6c",  # rep insb
                b"\xc3",
            ]
        )


def play(vm: Any, code: bytes, chance: random.Random, scramble: Callable[[Any], None]) -> None:
    """Run a guest for a while, and change its state from outside now and then."""
    vm.memory.write(CODE, code)
    for vcpu in vm.vcpus:
        if vcpu.is_secondary:
            continue
        with suppress_refusals():
            for _ in range(chance.randrange(1, 4)):
                exit = vcpu.run()
                if isinstance(exit, IoIn | MmioRead) and chance.random() < 0.8:
                    exit.complete(bytes(exit.size * exit.count))
            if chance.random() < 0.1:
                vcpu.inject_nmi()
            if chance.random() < 0.1:
                fpu = vcpu.get_fpu()
                fpu.fcw = chance.choice([0x27F, 0x37F, 0x33F])
                vcpu.set_fpu(fpu)
            if chance.random() < 0.1:
                scramble(vcpu)


MADE = [{}, {"vcpus": 2}, {"irqchip": True}, {"irqchip": True, "vcpus": 2}]


@pytest.mark.parametrize("made", MADE, ids=str)
@pytest.mark.parametrize("tsc", [False, True])
def test_random_guests(
    make: Make, backend: BackendUnderTest, made: dict[str, Any], tsc: bool
) -> None:
    chance = random.Random(f"{made} {tsc}")
    guests = RandomGuest(chance)
    vm = make(entry=Long64(CODE), **made)
    snapshot = vm.take_snapshot()
    before = contents(vm.memory)
    with kicked(vm):
        for turn in range(GUESTS):
            code = guests.code()
            play(vm, code, chance, backend.scramble)
            vm.reset_to(snapshot, tsc=tsc)
            where = f"{made}, tsc={tsc}, guest {turn}: {code.hex(' ')}"
            assert contents(vm.memory) == before, where
            assert str(snapshot.state.diff(vm.save())) == "no differences", where


def test_random_guests_change_what_is_not_reset(
    make: Make, arch: Any, backend: BackendUnderTest
) -> None:
    """So they would notice if a reset forgot it."""
    chance = random.Random(7)
    guests = RandomGuest(chance)
    vm = make(entry=Long64(CODE))
    snapshot = vm.take_snapshot()
    for sink, groups in arch._RESET_CALLS.groups.items():
        if sink in ("activity", "lapic", "events"):
            continue
        with kicked(vm):
            for _ in range(200):
                play(vm, guests.code(), chance, backend.scramble)
                vm.reset_to(snapshot, unchanged=groups)
                if snapshot.state.diff(vm.save()):
                    break
            else:
                pytest.fail(f"no guest has changed {groups}")
        vm.reset_to(snapshot)
        assert snapshot.state == vm.save()


def test_the_guests_own_changes_of_its_counter_are_undone(make: Make, arch: AnyBackend) -> None:
    """Which runs on otherwise, unless it is to continue from its saved value."""
    jump = "b910000000 b800000000 ba00000080 0f30"  # IA32_TSC = 1 << 63
    vm = make(bytes.fromhex(jump + "f4"), Long64(CODE))
    vcpu = vm.vcpus[0]
    snapshot = vm.take_snapshot()
    start = vcpu.get_msrs([0x10])[0x10]
    for _ in range(3):
        assert isinstance(vcpu.run(), Halt)
        vm.reset_to(snapshot)
        later = vcpu.get_msrs([0x10])[0x10]
        assert start < later < start + (1 << 40)
    time.sleep(0.2)
    vcpu.run()
    vm.reset_to(snapshot, tsc=True)
    found = vcpu.get_msrs([0x10])[0x10]
    try:
        arch.reset_vcpu(vcpu, Long64(CODE), tsc=0)
    except HypervisorError as error:
        assert "counter" in str(error)  # this hypervisor does not let anybody move it
        assert found > later
    else:
        assert found < later


@contextmanager
def suppress_refusals() -> Iterator[None]:
    """Leave out what the state of a guest that did anything at all does not allow."""
    with suppress(HypervisorError, UnansweredError):
        yield


@contextmanager
def kicked(vm: Any) -> Iterator[None]:
    """Let no guest run for long."""
    ended = threading.Event()
    interval = sys.getswitchinterval()

    def kick() -> None:
        while not ended.wait(0.003):
            for vcpu in vm.vcpus:
                vcpu.kick()

    thread = threading.Thread(target=kick)
    sys.setswitchinterval(1e-4)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        sys.setswitchinterval(interval)
