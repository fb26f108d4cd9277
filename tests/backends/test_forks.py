"""A forked child can close its parent's machine, whatever the parent's other threads were doing."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from vmm_arch.errors import HypervisorError
from vmm_arch.forks import ForkLock, forks
from vmm_arch.memory import GuestMemory as AnyMemory
from vmm_arch.selftest.x86_64.harness import AnyBackend
from vmm_arch.x86_64.entry import RealMode
from vmm_arch.x86_64.platform.memory_map import GuestMemory

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no process forks there")

SPIN = b"\xeb\xfe"  # jmp $
LATE = 20


def in_a_child(work: Callable[[], object]) -> str:
    """Do something in a forked child; return what it raised, or that it did not end."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            os.write(writable, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writable)
    end = time.monotonic() + LATE
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "it did not end"
        time.sleep(0.01)
    with os.fdopen(readable) as answer:
        return answer.read()


def test_another_thread_closes_the_machine(arch: AnyBackend, memory: GuestMemory) -> None:
    vm = arch.Vm(memory)
    reached, done = threading.Event(), threading.Event()
    vm._opened.callback(done.wait)  # type: ignore[attr-defined]
    vm._opened.callback(reached.set)  # type: ignore[attr-defined]
    closing = threading.Thread(target=vm.close)
    closing.start()
    assert reached.wait(LATE)

    def close() -> None:
        vm.close()
        memory.close()  # nobody holds it

    said = in_a_child(close)
    done.set()
    closing.join(LATE)
    assert said == ""
    memory.close()


def test_another_thread_runs_a_vcpu(arch: AnyBackend, memory: GuestMemory) -> None:
    memory.write(0x1000, SPIN)
    with arch.Vm(memory) as vm:
        vcpu = vm.vcpus[0]
        arch.configure_vcpu(vcpu, RealMode(0x1000))
        running = threading.Thread(target=vcpu.run)
        running.start()
        time.sleep(0.2)

        def close() -> None:
            with suppress(HypervisorError):  # of the stand-in for a system where nothing forks
                vm.close()

        said = in_a_child(close)
        assert running.is_alive()  # the parent's goes on
        vcpu.kick()
        running.join(LATE)
    assert said == ""


def test_the_thread_that_closes_the_machine_forks(arch: AnyBackend, memory: GuestMemory) -> None:
    vm = arch.Vm(memory)
    said: list[str] = []

    def fork() -> None:
        said.append(in_a_child(vm.close))

    vm._opened.callback(fork)  # type: ignore[attr-defined]
    vm.close()
    assert said == [""]
    memory.close()


class TestLocks:
    def test_one_that_another_thread_holds(self) -> None:
        lock = ForkLock()
        held, done = threading.Event(), threading.Event()

        def hold() -> None:
            with lock:
                held.set()
                done.wait()

        holding = threading.Thread(target=hold)
        holding.start()
        assert held.wait(LATE)
        assert not lock.acquire(blocking=False)

        def take() -> None:
            assert forks() == before + 1
            assert lock.acquire(blocking=False)
            lock.release()

        before = forks()
        said = in_a_child(take)
        done.set()
        holding.join()
        assert said == ""
        assert forks() == before
        with lock, lock:
            pass

    def test_one_that_this_thread_held_before(self) -> None:
        """Another thread has taken it, and not yet come to note that."""
        lock = ForkLock()
        with lock:
            pass
        taken, done = threading.Event(), threading.Event()

        def take() -> None:
            with lock._lock:
                taken.set()
                done.wait()

        taking = threading.Thread(target=take)
        taking.start()
        assert taken.wait(LATE)
        said = in_a_child(lambda: lock.acquire(blocking=False) or 1 / 0)
        done.set()
        taking.join()
        assert said == ""

    def test_one_that_this_thread_holds(self) -> None:
        lock = ForkLock()
        with lock:
            assert in_a_child(lock.release) == ""

    def test_memory_that_another_thread_is_closing(self) -> None:
        memory = AnyMemory(0x1000)
        with memory._lock:
            said: list[str] = []
            other = threading.Thread(target=lambda: said.append(in_a_child(memory.close)))
            other.start()
            other.join()
        assert said == [""]
        memory.close()
