"""A server whose requests are answered by micro-VMs: one for each request, from a pool, always as new.

    python examples/answering_pool.py [PORT]      needs /dev/kvm; then: echo 27 | nc localhost PORT

Each line that a client sends is a number; the answer is how many steps Collatz's rule takes from there
to 1. The guest that finds it sees one request only: its machine is reset before the next one. One
that takes too long is stopped, and replaced.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Timer

from vmm_arch import kvm_x86_64 as arch

MACHINES, SECONDS = 4, 5.0
GUEST = bytes.fromhex(
    "e6 e9"  # out 0xe9, al: ready
    "66 e5 10"  # in eax, 0x10
    "31 c9"  # xor cx, cx
    "66 83 f8 01"  # step: cmp eax, 1
    "74 12"  # je done
    "41"  # inc cx
    "a8 01"  # test al, 1
    "74 08"  # jz even
    "67 66 8d 44 40 01"  # lea eax, [eax + eax * 2 + 1]
    "eb ed"  # jmp step
    "66 d1 e8"  # even: shr eax, 1
    "eb e8"  # jmp step
    "89 c8"  # done: mov ax, cx
    "e7 11"  # out 0x11, ax
    "f4"  # hlt
)


def prepare() -> arch.Snapshot:
    """Run the guest until it is ready, and take a snapshot."""
    with arch.GuestMemory(1 << 20) as memory, arch.Vm(memory) as vm:
        memory.write(0x1000, GUEST)
        arch.configure_vcpu(vm.vcpus[0], arch.RealMode(0x1000))
        ready = vm.vcpus[0].run()
        assert isinstance(ready, arch.IoOut)
        return vm.take_snapshot()


def answer(pool: arch.MachinePool, number: int) -> int:
    """Ask a machine; in a thread, since it waits for the guest."""
    with pool.machine(timeout=SECONDS) as vm:
        end = time.monotonic() + SECONDS
        late = Timer(SECONDS, vm.vcpus[0].kick)
        late.start()
        try:
            while True:
                match vm.vcpus[0].run():
                    case arch.IoIn(port=0x10) as question:
                        question.complete(number)
                    case arch.IoOut(port=0x11) as told:
                        return told.value
                    case arch.Kicked() if time.monotonic() < end:
                        pass  # meant for the one before, who was done just then
                    case other:  # the error is the machine's end, and another one is made
                        raise RuntimeError(f"no answer: {other}")
        finally:
            late.cancel()


async def serve(pool: arch.MachinePool, port: int) -> None:
    """Answer clients until Control-C, or a SIGTERM."""
    loop, threads = asyncio.get_running_loop(), ThreadPoolExecutor(MACHINES)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async for line in reader:
                try:
                    number = int(line)
                    if not 0 < number < 1 << 32:
                        raise ValueError("give a number from 1 to 2**32 - 1")
                    said = str(await loop.run_in_executor(threads, answer, pool, number))
                except (ValueError, RuntimeError, OSError) as error:
                    said = f"error: {error}"
                writer.write(f"{said}\n".encode())
                await writer.drain()
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "localhost", port)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, server.close)
    print("listening on port", server.sockets[0].getsockname()[1], flush=True)
    async with server:
        with suppress(asyncio.CancelledError):  # closed
            await server.serve_forever()


def main(port: str = "0") -> None:
    """The first machines are made here, in the main thread, which prepares the process for kicks."""
    with prepare() as snapshot, arch.MachinePool(snapshot, MACHINES, ready=MACHINES) as pool:
        asyncio.run(serve(pool, int(port)))
        print(pool.statistics)


if __name__ == "__main__":
    main(*sys.argv[1:])
