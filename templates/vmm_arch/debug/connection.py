"""Clients of the debugger's: one at a time, over TCP."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Event, Lock, Thread
from typing import Final, TypeAlias

from vmm_arch.debug.packets import Damaged, Interrupt, Packet, Parser, Resend, packet

_POLL: Final = 0.2
_PATIENCE: Final = 5.0
"""Seconds that a client has to take what is sent."""
_BEGINNINGS: Final = b"+-$\x03"
"""What a client's first byte is. Anything else is no debugger: a browser, for instance."""
_WAITING: Final = 256
"""Packets that a client may send without waiting for answers."""


class Connection:
    """A client."""

    def __init__(self, client: socket.socket) -> None:
        self._socket = client
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.settimeout(_PATIENCE)
        self._lock = Lock()
        self._last = b""
        self.acknowledges = True
        """Whether packets are acknowledged: until the client does not want it."""
        self.unanswered = 0
        """Packets that were received and not answered yet."""

    def send(self, data: bytes) -> None:
        """Send a packet. If the client is not there, or does not take it, it is disconnected."""
        self._last = packet(data)
        self._send(self._last)

    def close(self) -> None:
        """Disconnect the client."""
        with suppress(OSError):  # it has gone already
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def receive(self, note: Callable[[ClientEvent], object]) -> None:
        """Call ``note`` with what the client does, until it goes; never if it is no debugger."""
        parser, known = Parser(), False
        try:
            while True:
                try:
                    received = self._socket.recv(0x4000)
                except TimeoutError:
                    continue  # it has nothing to say
                except OSError:
                    return
                if not received or not (known or received[0] in _BEGINNINGS):
                    return
                if not known:
                    known = True
                    note(Connected(self))
                if not self._take(parser, received, note):
                    return
        finally:
            if known:
                note(Gone(self))

    def _take(self, parser: Parser, received: bytes, note: Callable[[ClientEvent], object]) -> bool:
        """Note what these bytes are; False if the client sends more than it waits for."""
        for event in parser.feed(received):
            match event:
                case Packet():
                    if self.unanswered > _WAITING:
                        return False
                    self.unanswered += 1
                    if self.acknowledges:
                        self._send(b"+")
                    note(event)
                case Interrupt():
                    note(event)
                case Damaged() if self.acknowledges:
                    self._send(b"-")
                case Resend():
                    self._send(self._last)
        return True

    def _send(self, data: bytes) -> None:
        with self._lock:
            try:
                self._socket.sendall(data)
            except OSError:
                self.close()


@dataclass(frozen=True, slots=True)
class Connected:
    """A client is there."""

    connection: Connection


@dataclass(frozen=True, slots=True)
class Gone:
    """A client is not there any more."""

    connection: Connection


ClientEvent: TypeAlias = Connected | Gone | Packet | Interrupt


class Listener:
    """Waits for clients, and reads from the one that is there, in a thread."""

    def __init__(self, address: tuple[str, int], note: Callable[[ClientEvent], object]) -> None:
        """Raises OSError if the address cannot be used."""
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._socket = socket.create_server(address, family=family, backlog=1)
        self._socket.settimeout(_POLL)
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        self._note = note
        self._over = Event()
        self._client: Connection | None = None
        self._thread = Thread(target=self._serve, name="gdb", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Disconnect the client, and wait for none any more."""
        self._over.set()
        client = self._client
        if client is not None:
            client.close()
        self._thread.join()

    def _serve(self) -> None:
        with self._socket:
            while not self._over.is_set():
                try:
                    client, _ = self._socket.accept()
                except OSError:
                    continue  # nobody is there, or is there any more
                self._client = Connection(client)
                if not self._over.is_set():
                    self._client.receive(self._note)
                self._client.close()
