"""``vmm-arch run --save-on … --save FILE``, and what ``--restore`` needs of such a file."""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Timer
from time import monotonic
from types import FrameType
from typing import Any, Final

from vmm_arch.command.cpu import Cpu
from vmm_arch.devices.bus import Bus
from vmm_arch.devices.state import problems
from vmm_arch.ending import Reason
from vmm_arch.errors import StateError
from vmm_arch.protocols.common import Backend

END, CONTINUE = "end", "continue"
EPILOG: Final = """\
events for --save-on; they may come again with --after-save continue, but for the first two:
  text:TEXT      the guest has written TEXT to its console
  time:SECONDS   it has run for so long
  write:PLACE    the guest writes to this place, such as the port in write:0xf4
  signal         vmm-arch is sent SIGUSR1
The file has the guest's memory in plain. It fits hosts with the same hypervisor and a like CPU.
"""
DEVICES, OPTIONS = "bus", "options"
"""The entries of a snapshot's ``devices``: the bus's state, and the options that added some."""
NOTIFIED: Final = "notified"
"""The entry of the latter for the places at which a write is an event."""


@dataclass(frozen=True)
class Event:
    """When to save; ``value`` is a text, seconds, a place or None, after the kind."""

    kind: str
    value: Any
    text: str
    """As the user has written it."""


class Places:
    """A list of places, as a field of a saved state."""

    def accepts(self, value: Any) -> bool:
        return type(value) is list and all(type(at) is int and at >= 0 for at in value)

    def __str__(self) -> str:
        return "a list of places"


def event(text: str) -> Event:
    """Parse an event."""
    kind, colon, rest = text.partition(":")
    try:
        match kind:
            case "text" if rest:
                return Event(kind, rest.encode(), text)
            case "time" if 0 <= (seconds := float(rest)) < float("inf"):
                return Event(kind, seconds, text)
            case "write" if (place := int(rest, 0)) >= 0:
                return Event(kind, place, text)
            case "signal" if not colon:
                return Event(kind, None, text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(
        f"{text!r} is not an event: text:TEXT, time:SECONDS, write:PLACE or signal"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments about saving and restoring."""
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help="save the machine, with its memory, to this file"
    )
    parser.add_argument(
        "--save-on",
        type=event,
        action="append",
        default=[],
        metavar="EVENT",
        help="when to: text:TEXT, time:SECONDS, write:PLACE or signal, see below; may be repeated",
    )
    parser.add_argument(
        "--after-save",
        choices=[END, CONTINUE],
        default=END,
        help="when the machine was saved: end, or run on (default: %(default)s)",
    )
    parser.add_argument(
        "--restore",
        type=Path,
        metavar="FILE",
        help="go on with a machine that was saved, instead of booting a kernel",
    )
    parser.add_argument(
        "--new-id",
        action="store_true",
        help="with --restore: give the guest another generation id (VM Generation ID), so that it does"
        " not draw the random numbers of others that go on from this file",
    )
    parser.add_argument(
        "--catch-up",
        action="store_true",
        help="with --restore: the guest's clocks advance by the time since the save, as if it had run on"
        " (default: they go on where they were)",
    )
    parser.set_defaults(notified=[])  # filled in from the saved machine


def check(options: argparse.Namespace, booting: Sequence[str]) -> None:
    """Raise ValueError, which lists everything, if options contradict each other.

    ``booting`` are the names of those that only a boot needs.
    """
    wrong = []
    if options.restore is None and options.kernel is None:
        wrong.append("no kernel: give one, or a saved machine with --restore")
    if options.new_id and options.restore is None:
        wrong.append(
            "--new-id: it is for a machine that is restored; leave it out, or give --restore"
        )
    if options.restore is not None:
        given = [name for name in booting if getattr(options, name, None) not in (None, "")]
        if given:
            names = ", ".join("KERNEL" if name == "kernel" else f"--{name}" for name in given)
            wrong.append(f"--restore: the saved machine has its own {names}; leave that out")
    elif options.catch_up:
        wrong.append("--catch-up: no saved machine; give one with --restore")
    if options.save is None and options.save_on:
        wrong.append("--save-on: no file; give one with --save")
    if options.save is not None:
        if not options.save_on:
            wrong.append("--save: no event; say when with --save-on")
        folder = options.save.absolute().parent
        if not os.access(folder, os.W_OK):
            wrong.append(f"--save: nothing can be written to the folder {folder}")
    if any(e.kind == "signal" for e in options.save_on) and not hasattr(signal, "SIGUSR1"):
        wrong.append("--save-on signal: this system has no SIGUSR1; use another event")
    if wrong:
        raise ValueError("\n".join(wrong))


class Saver:
    """Saves machines, one after the other, when one of the events comes."""

    def __init__(
        self, options: argparse.Namespace, stack: ExitStack, say: Callable[[str], object]
    ) -> None:
        self._options = options
        self._stack = stack
        self._say = say
        self._machine: tuple[Any, Bus, Mapping[str, Any]] | None = None
        """The machine, its bus, and what the snapshot says of the options that made that."""
        self._asked: tuple[Event, float] | None = None
        """The event, and when it came; None while nobody waits for a save."""
        self._texts = {wanted.value: wanted for wanted in self._events("text")}
        self._shown = b""
        """The end of the console's output, as long as a text may have begun in it."""
        self.saved = False
        for wanted in self._events("signal"):
            self._handle_signal(wanted)

    def connect(self, vm: Any, bus: Bus, cpu: Cpu) -> None:
        """Save this machine from now on, or at once if an event came before it was there."""
        places = {wanted.value: wanted for wanted in self._events("write")}
        notified = dict.fromkeys([*places, *self._options.notified])
        for place in notified:
            wanted = places.get(place)
            cpu.attach_notifier(bus, place, partial(self.request, wanted) if wanted else int)
        if self._machine is None:
            for wanted in self._events("time"):
                timer = Timer(wanted.value, self.request, (wanted,))
                timer.daemon = True
                timer.start()
                self._stack.callback(timer.cancel)
        added = {name: getattr(self._options, name) for name in cpu.DEVICE_OPTIONS}
        self._machine = vm, bus, {**added, NOTIFIED: [*notified]}
        if self._asked is not None:
            bus.pause(self._save)

    def note(self, output: bytes) -> None:
        """Look at what the guest writes to its console."""
        if not self._texts:
            return
        self._shown += output
        for text in [text for text in self._texts if text in self._shown]:
            self.request(self._texts.pop(text))
        longest = max(map(len, self._texts), default=1)
        self._shown = self._shown[max(len(self._shown) - longest + 1, 0) :]

    def request(self, wanted: Event) -> None:
        """Save as soon as no vCPU runs; safe in any thread and in signal handlers."""
        if self._asked is None:
            self._asked = wanted, monotonic()
            if self._machine is not None:
                self._machine[1].pause(self._save)

    def _events(self, kind: str) -> list[Event]:
        return [wanted for wanted in self._options.save_on if wanted.kind == kind]

    def _handle_signal(self, wanted: Event) -> None:
        def handle(number: int, frame: FrameType | None) -> None:
            self.request(wanted)

        number = signal.Signals["SIGUSR1"]
        self._stack.callback(signal.signal, number, signal.signal(number, handle))

    def _save(self) -> None:
        """Save the machine, whose vCPUs are stopped."""
        assert self._machine is not None
        assert self._asked is not None
        vm, bus, added = self._machine
        wanted, asked = self._asked
        self._asked = None
        stopped = monotonic()
        if self._options.after_save == END:  # now, since a timeout could come while it is written
            bus.stop(Reason.SAVED)
        try:
            with bus.held():
                snapshot = vm.take_snapshot(devices={DEVICES: bus.save(), OPTIONS: added})
            with snapshot:
                copied = monotonic()
                snapshot.save(self._options.save)
        except (OSError, ValueError) as error:
            if self._options.after_save == END:
                raise
            self._say(f"\nvmm-arch: not saved: {error}")
            return
        self.saved = True
        if not self._options.quiet:
            self._say(
                f"\nvmm-arch: saved to {self._options.save} on {wanted.text}: stopped after"
                f" {1000 * (stopped - asked):.1f} ms, copied in {copied - stopped:.2f} s,"
                f" written in {monotonic() - copied:.2f} s"
            )


def load(arch: Backend, options: argparse.Namespace, cpu: Cpu) -> Any:
    """Load the saved machine, and take over the options that say which devices it has.

    Raises ValueError or OSError; the caller closes it.
    """
    snapshot = arch.Snapshot.load(options.restore)
    added = snapshot.devices.get(OPTIONS)
    fields = {**cpu.DEVICE_OPTIONS, NOTIFIED: Places()}
    if not isinstance(added, Mapping) or DEVICES not in snapshot.devices:
        wrong = ["it was not saved by vmm-arch run, so that its devices are not known"]
    else:
        wrong = problems(fields, added)
    if wrong:
        snapshot.close()
        raise ValueError("\n".join(f"{options.restore}: {what}" for what in wrong))
    for name in cpu.DEVICE_OPTIONS:
        if getattr(options, name) is None:
            setattr(options, name, added[name])
    options.notified = added[NOTIFIED]
    return snapshot


def restore_devices(bus: Bus, snapshot: Any, options: argparse.Namespace) -> None:
    """Have the devices go on as well.

    The files of disks are for the user to name again: a snapshot may come from anybody, and must not
    choose what of this host's its guest gets.
    """
    try:
        bus.restore(snapshot.devices[DEVICES])
    except StateError as error:
        problems = "\n".join(f"{options.restore}: {what}" for what in error.problems)
        raise ValueError(
            f"{problems}\ngive each --disk again that the machine was saved with"
        ) from None
