"""Guests whose memory is filled while they run: each page when somebody first uses it."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from requirements import require
from vmm_arch import userfaultfd
from vmm_arch.errors import ForkedError
from vmm_arch.exits import Halt
from vmm_arch.lazy_pages import READ_AHEAD, PageSourceError
from vmm_arch.memory import GuestMemory, MemoryInUseError, Region
from vmm_arch.selftest.x86_64.harness import AnyBackend
from vmm_arch.x86_64.entry import RealMode
from vmm_arch.x86_64.exits import Exit, IoOut

PAGE = 0x1000
SIZE = 1 << 20
# mov ax, 0x4000; mov ds, ax; mov al, [0x10]; out 0xe9, al; mov ax, 0x5000; mov ds, ax;
# mov al, [0x20]; out 0xe9, al; mov [0x30], al; hlt
GUEST = bytes.fromhex("b8 00 40 8e d8 a0 10 00 e6 e9 b8 00 50 8e d8 a0 20 00 e6 e9 a2 30 00 f4")
LATE = 20


class Store:
    """What memory is filled from: it counts, and fails where it is told to."""

    def __init__(self, size: int = SIZE) -> None:
        self.content = bytearray(size)
        self.content[PAGE : PAGE + len(GUEST)] = GUEST
        self.content[0x40010], self.content[0x50020] = b"AB"
        self.asked: list[tuple[int, int]] = []
        self.threads: set[int] = set()
        self.fails_at = -1

    def __call__(self, offset: int, size: int) -> bytes:
        self.asked.append((offset, size))
        self.threads.add(threading.get_ident())
        if offset <= self.fails_at < offset + size:
            raise ConnectionError("the store is gone")
        return bytes(self.content[offset : offset + size])


@pytest.fixture
def store() -> Store:
    require(os.access("/dev/userfaultfd", os.R_OK | os.W_OK), "no access to /dev/userfaultfd")
    return Store()


def started(arch: AnyBackend, vm: Any) -> Any:
    arch.configure_vcpu(vm.vcpus[0], RealMode(PAGE))
    return vm.vcpus[0]


def run(vcpu: Any) -> Exit:
    """Run a vCPU in a thread, which a test can stop waiting for."""
    ended: list[Any] = []

    def run() -> None:
        try:
            ended.append(vcpu.run())
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(LATE)
    assert ended, "the guest hangs"
    if isinstance(ended[0], BaseException):
        raise ended[0]
    exit: Exit = ended[0]
    return exit


def said(vcpu: Any) -> bytes:
    said = b""
    while not isinstance(exit := vcpu.run(), Halt):
        assert isinstance(exit, IoOut)
        said += exit.data
    return said


def test_a_guest_gets_its_pages_when_it_uses_them(arch: AnyBackend, store: Store) -> None:
    with arch.GuestMemory(SIZE, page_source=store) as memory:
        assert store.asked == []
        with arch.Vm(memory) as vm:
            assert said(started(arch, vm)) == b"AB"
            assert store.asked == [(at, READ_AHEAD) for at in (0, 0x40000, 0x50000)]
            assert threading.get_ident() not in store.threads
            assert memory.missing == SIZE - 3 * READ_AHEAD
            assert memory.read(0x50020, 0x11) == b"B" + bytes(15) + b"B"
            assert len(store.asked) == 3
            memory.populate()
        assert memory.missing == 0
        assert sum(size for _, size in store.asked) == SIZE
        wanted = store.content
        wanted[0x50030:0x50031] = b"B"
        assert memory.read(0, SIZE) == wanted
    assert not [t for t in threading.enumerate() if t.name == "page source"]


def test_the_host_fills_what_it_uses(store: Store) -> None:
    """In the thread that uses it: to wait for another one would be to wait for ever, with the GIL."""
    regions = [Region(0x10_0000, 0x41000), Region(0x1000_0000, SIZE - 0x41000)]
    with GuestMemory(regions, page_source=store) as memory:
        assert memory.read(0x14_0010, 1) == b"A"
        assert store.asked == [(0x40000, READ_AHEAD)]
        assert memory.read(0x1000_F020, 1) == b"B"  # follows the first region
        memory.write(0x10_0FFF, b"xy")
        assert memory.read(0x10_1000, 2) == b"y" + GUEST[1:2]
        with memory.view(0x1001_0000, 0x20000) as view:
            assert not any(view)
        assert store.threads == {threading.get_ident()}
        assert memory.missing == SIZE - 5 * READ_AHEAD
        memory.host_address(regions[1])
        assert memory.missing == SIZE - 5 * READ_AHEAD


def test_memory_is_saved_whole(store: Store, tmp_path: Any) -> None:
    with GuestMemory(SIZE, page_source=store) as memory:
        memory.save(tmp_path / "memory")
        assert (tmp_path / "memory").read_bytes() == store.content


def test_a_snapshot_goes_on_from_a_store(arch: AnyBackend, store: Store) -> None:
    with arch.GuestMemory(SIZE) as memory, arch.Vm(memory) as vm:
        memory.write(0, store.content)
        exit = started(arch, vm).run()
        assert isinstance(exit, IoOut)
        state = vm.save().to_json()
        saved = memory.read(0, SIZE)
    with (
        arch.GuestMemory(SIZE, page_source=lambda at, size: saved[at : at + size]) as memory,
        arch.Vm(memory) as vm,
    ):
        vm.restore(arch.VmState.from_json(state))
        assert said(vm.vcpus[0]) == b"B"
        assert 0 < memory.missing < SIZE


def test_a_machine_with_missing_pages_is_reset(arch: AnyBackend, store: Store) -> None:
    if "reset_to" in arch.UNSUPPORTED:
        return
    with arch.GuestMemory(SIZE, page_source=store) as memory, arch.Vm(memory) as vm:
        started(arch, vm)
        snapshot: Any = vm.take_snapshot()
    with (
        snapshot,
        arch.GuestMemory(SIZE, page_source=store) as memory,
        arch.Vm(memory, track_dirty=True) as vm,
    ):
        for _ in range(2):
            vm.reset_to(snapshot)
            assert said(vm.vcpus[0]) == b"AB"
            assert memory.read(0x50030, 1) == b"B"
        vm.reset_to(snapshot)
        assert memory.read(0x50030, 1) == b"\0"


@pytest.mark.parametrize("at", [PAGE, 0x40010])
def test_an_error_of_the_source_is_the_guests_end(arch: AnyBackend, store: Store, at: int) -> None:
    store.fails_at = at
    with arch.GuestMemory(SIZE, page_source=store) as memory, arch.Vm(memory) as vm:
        vcpu = started(arch, vm)
        for _ in range(2):
            with pytest.raises(PageSourceError, match=f"{at & ~0xFFF:#x} cannot be.*store is gone"):
                run(vcpu)
            vcpu.kick()
        assert isinstance(vm.vcpus[0].get_regs().rip, int)
        with pytest.raises(PageSourceError) as raised:
            memory.read(0, 1)
        assert isinstance(raised.value.__cause__, ConnectionError)


@pytest.mark.parametrize("content", [b"", bytes(READ_AHEAD + 1), None])
def test_a_source_that_does_not_return_what_it_should(
    arch: AnyBackend, store: Store, content: Any
) -> None:
    with arch.GuestMemory(SIZE, page_source=lambda *_: content) as memory, arch.Vm(memory) as vm:
        with pytest.raises((ValueError, TypeError), match=r"return all|NoneType"):
            memory.read(0x80000, 1)
        with pytest.raises(PageSourceError):
            run(started(arch, vm))


def test_an_error_while_the_host_needs_a_page_changes_nothing(store: Store) -> None:
    with GuestMemory(SIZE, page_source=store) as memory:
        store.fails_at = 0x40010
        with pytest.raises(ConnectionError):
            memory.read(0x40010, 1)
        with pytest.raises(ConnectionError):
            memory.write(0x3FFFF, b"xyz")
        store.fails_at = -1
        assert memory.read(0x40010, 1) == b"A"
        assert memory.read(0x3FFFF, 1) == b"\0"


def test_a_guest_that_waits_for_a_slow_source_can_be_kicked_and_closed(
    arch: AnyBackend, store: Store
) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def slow(offset: int, size: int) -> bytes:
        asked.set()
        go_on.wait(LATE)
        return store(offset, size)

    with arch.GuestMemory(SIZE, page_source=slow) as memory, arch.Vm(memory) as vm:
        vcpu = started(arch, vm)
        exits: list[Exit] = []
        running = threading.Thread(target=lambda: exits.append(vcpu.run()))
        running.start()
        assert asked.wait(LATE)
        vcpu.kick()
        go_on.set()
        running.join(LATE)
        assert type(exits[0]).__name__ in ("Kicked", "IoOut")


def test_views_keep_memory_as_it_is(store: Store) -> None:
    memory = GuestMemory(SIZE, page_source=store)
    view = memory.view(0, PAGE)
    with pytest.raises(MemoryInUseError):
        memory.close()
    assert memory.read(0x40010, 1) == b"A"  # still filled
    view.release()
    memory.close()
    memory.close()


def test_nothing_is_left(store: Store) -> None:
    before = os.listdir("/proc/self/fd")
    for _ in range(20):
        GuestMemory(SIZE, page_source=store).close()
        del GuestMemory(SIZE, page_source=store).regions  # dropped
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert not [t for t in threading.enumerate() if t.name == "page source"]


def test_a_forked_child_is_told(store: Store) -> None:
    from test_forks import in_a_child

    with GuestMemory(SIZE, page_source=store) as memory:
        memory.read(0, 1)

        def use() -> None:
            assert memory.read(PAGE, 1) == GUEST[:1]
            with pytest.raises(ForkedError, match="forked child"):
                memory.read(0x40010, 1)
            memory.close()

        assert in_a_child(use) == ""
        assert memory.read(0x40010, 1) == b"A"


def test_what_does_not_fit_together(store: Store) -> None:
    with pytest.raises(ValueError, match="leave out file and huge_pages"):
        GuestMemory(SIZE, page_source=store, huge_pages="transparent")
    with pytest.raises(ValueError, match="leave out file and huge_pages"):
        GuestMemory(SIZE, page_source=store, file="anything")


def test_who_may_not_is_told_what_to_do(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> int:
        raise PermissionError

    monkeypatch.setattr(userfaultfd, "_from_device", refused)
    before = os.listdir("/proc/self/fd")
    GuestMemory(SIZE, page_source=store).close()  # the older way

    if os.fork() == 0:
        status = 1
        try:
            os.setuid(65534)
            with pytest.raises(userfaultfd.UserfaultfdUnavailableError, match=r"setfacl.*sysctl"):
                GuestMemory(SIZE, page_source=store)
            status = 0
        finally:
            os._exit(status)
    assert os.wait()[1] == 0
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(userfaultfd.UserfaultfdUnavailableError, match="part of Linux"):
        userfaultfd._open()
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_several_vcpus_and_the_host_at_once(arch: AnyBackend, store: Store) -> None:
    """Each page is asked for once, whoever needs it first."""
    # next: inc byte [di]; add di, 0x1000; jnz next; hlt
    code = bytes.fromhex("fe 05 81 c7 00 10 75 f8 f4")
    store.content[PAGE : PAGE + len(code)] = code

    def all_of(memory: Any) -> Iterator[int]:
        for at in range(SIZE - PAGE, 0x10000, -PAGE):
            time.sleep(0)
            yield memory.read(at, 1)[0]

    with arch.GuestMemory(SIZE, page_source=store) as memory, arch.Vm(memory) as vm:
        vcpu = started(arch, vm)
        exits: list[Exit] = []
        running = threading.Thread(target=lambda: exits.append(vcpu.run()))
        running.start()
        assert not any(all_of(memory))
        running.join(LATE)
        assert isinstance(exits[0], Halt)
        assert sorted(store.asked) == [(at, READ_AHEAD) for at in range(0, SIZE, READ_AHEAD)]
