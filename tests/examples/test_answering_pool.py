"""The example that answers requests with machines of a pool."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from requirements import require


def steps(number: int) -> int:
    count = 0
    while number != 1:
        number = (3 * number + 1) & 0xFFFF_FFFF if number % 2 else number // 2
        count += 1
    return count


def test_it_answers_several_clients_at_once(checkout: Path) -> None:
    require(os.access("/dev/kvm", os.R_OK | os.W_OK), "no read and write access to /dev/kvm")
    command = [sys.executable, "-u", str(checkout / "examples/answering_pool.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            said = server.stdout.readline()
            assert said.startswith("listening on port ")
            port = int(said.split()[-1])

            def ask(first: int) -> list[str]:
                with socket.create_connection(("localhost", port), timeout=60) as client:
                    client.sendall(b"".join(b"%d\n" % (first + at) for at in range(10)))
                    with client.makefile() as answers:
                        return [answers.readline().strip() for _ in range(10)]

            with ThreadPoolExecutor(6) as clients:
                for first, answers in enumerate(clients.map(ask, range(1, 7)), start=1):
                    assert answers == [str(steps(first + at)) for at in range(10)]
            with socket.create_connection(("localhost", port), timeout=60) as client:
                # 3 n + 1 is 2**32, which is 0 in 32 bits: from there no step leads to 1, so it is stopped.
                client.sendall(b"x\n0\n1431655765\n27\n")
                with client.makefile() as told:
                    lines = [told.readline().strip() for _ in range(4)]
            assert lines[0].startswith("error: invalid literal")
            assert lines[1] == "error: give a number from 1 to 2**32 - 1"
            assert lines[2].startswith("error: no answer: Kicked")
            assert lines[3] == "111"
        finally:
            server.send_signal(signal.SIGINT)
        assert (
            "in_use=0, made=4, acquired=62, waits=0, resets=61, discarded=1" in server.stdout.read()
        )
        assert server.wait(30) == 0
