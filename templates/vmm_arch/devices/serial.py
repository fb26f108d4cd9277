"""A serial port: the PC's UART, for which every operating system has a driver."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from threading import RLock
from typing import Any, ClassVar

from vmm_arch.devices.state import FLAG, Bytes, Choice, Fields, Number, check

# Register offsets and bits (National Semiconductor, PC16550D, June 1995, table II). RBR and THR,
# and IIR and FCR, share an offset: the first is read, the second written.
RBR = THR = 0
IER = 1
IIR = FCR = 2
LCR = 3
MCR = 4
LSR = 5
MSR = 6
SCR = 7
DLL, DLM = 0, 1
"""Replace RBR, THR and IER while LCR_DLAB is set."""

IER_ERBFI, IER_ETBEI, IER_ELSI, IER_EDSSI = 0x1, 0x2, 0x4, 0x8
"""Interrupt enables: received data, transmitter empty, receiver line status, modem status."""
FCR_ENABLE, FCR_CLEAR_RECEIVER = 0x1, 0x2
TRIGGER_LEVELS = 1, 4, 8, 14
"""By bits 6 and 7 of FCR: the number of characters in the FIFO that raises an interrupt."""
LCR_DLAB = 0x80
MCR_DTR, MCR_RTS, MCR_OUT1, MCR_OUT2, MCR_LOOP = 0x1, 0x2, 0x4, 0x8, 0x10
LSR_DR, LSR_OE, LSR_THRE, LSR_TEMT = 0x1, 0x2, 0x20, 0x40
MSR_CTS, MSR_DSR, MSR_RI, MSR_DCD = 0x10, 0x20, 0x40, 0x80

# Values of IIR, by priority (table IV); bits 6 and 7 are set while the FIFOs are enabled.
LINE_STATUS, RECEIVED_DATA, CHARACTER_TIMEOUT, TRANSMITTER_EMPTY, MODEM_STATUS = 6, 4, 12, 2, 0
NO_INTERRUPT = 1
IIR_FIFOS = 0xC0

REGISTERS = 8
"""The number of ports of a UART."""
FIFO_SIZE = 16
POLLS = 8
"""This many consecutive reads of LSR are polling for input: to print, drivers read it once a write."""
DIVISOR_OF_9600 = 12
"""As left by firmware. Linux divides by it if the command line gives no baud rate."""

_LOOPED = {MCR_DTR: MSR_DSR, MCR_RTS: MSR_CTS, MCR_OUT1: MSR_RI, MCR_OUT2: MSR_DCD}
"""In loopback, the input that each output is wired to (8.6.1)."""


class Serial16550:
    """A 16550A UART (PC16550D), a device of eight ports.

    Each byte that the guest sends is passed to ``output`` at once, without line buffering, since a
    prompt does not end with a newline. ``bytearray().extend`` collects the output, and
    ``partial(os.write, 1)`` prints it. :meth:`receive` sends to the guest. ``set_irq`` is called
    whenever the interrupt line changes.

    Transmission takes no time: everything due happens between two accesses, and between two
    interrupts the line is lowered as the chip lowers it, so that edge-triggered interrupts work.
    There is flow control: characters for the guest are queued until the FIFO has room. With
    ``wait_for_listener`` they are also queued until the guest listens, by enabling the
    received-data interrupt or by polling, and the FIFO's content is put back into the queue if it
    stops or clears the FIFO: Linux' driver (8250) discards input while it probes the chip. Baud
    rate, character length, parity and break have no effect. The interrupt is the chip's INTR; OUT2,
    which gates it on a PC's board, is ignored.
    """

    STATE: ClassVar[Fields] = {
        "incoming": Bytes(),
        "fifo": Bytes(0, FIFO_SIZE),
        "polls": Number(POLLS.bit_length()),
        **dict.fromkeys(("looped", "fifos_enabled", "timed_out", "overrun"), FLAG),
        **dict.fromkeys(("transmitter_emptied", "irq"), FLAG),
        "trigger": Choice(TRIGGER_LEVELS),
        "ier": Number(4),
        "lcr": Number(8),
        "mcr": Number(5),
        "msr": Number(8),
        "scr": Number(8),
        "divisor": Number(16),
    }
    """Its attributes, with an underscore before the name."""
    DEFERRABLE: ClassVar[Sequence[int]] = (THR,)
    """A character may wait: whether it was sent is seen only in other registers."""

    def __init__(
        self,
        output: Callable[[bytes], object],
        set_irq: Callable[[bool], object] | None = None,
        *,
        wait_for_listener: bool = False,
    ) -> None:
        self._output = output
        self._set_irq = set_irq
        self._irq = False
        self.lock = RLock()
        """Held by whoever uses the port: the vCPUs' threads and those that call :meth:`receive`."""
        self._incoming: deque[int] = deque()
        """Characters queued for the FIFO."""
        self._fifo: deque[int] = deque()
        self._waits = wait_for_listener
        self._polls = 0
        """How often LSR was read since the last access to a register other than LSR and RBR."""
        self._looped = False
        """Whether the FIFO has characters received in loopback."""
        self._fifos_enabled = False
        self._trigger = TRIGGER_LEVELS[0]
        self._timed_out = False
        self._overrun = False
        self._transmitter_emptied = False
        """Whether the transmitter-empty interrupt is due."""
        self._ier = 0
        self._lcr = 0
        self._mcr = 0
        self._msr = MSR_CTS | MSR_DSR | MSR_DCD  # a terminal is connected
        self._scr = 0
        self._divisor = DIVISOR_OF_9600

    def receive(self, data: bytes) -> None:
        """Send characters to the guest. Call it from any thread, but not from a signal handler.

        The access that the handler interrupted may hold the lock, which would deadlock.
        """
        with self.lock:
            self._incoming.extend(data)
            self._fill_fifo()
            self._update_irq()

    @property
    def waiting(self) -> int:
        """The number of characters sent to the guest that it has not read yet."""
        return len(self._incoming) + len(self._fifo)

    def read(self, offset: int, size: int) -> int:
        """Read a register; a wide access reads several, as the ISA bus splits it."""
        with self.lock:
            value = self._read(offset)
            for following in range(1, size):
                value |= self._read(offset + following) << 8 * following
            return value

    def write(self, offset: int, size: int, value: int) -> None:
        """Write a register; a wide access writes several, as the ISA bus splits it."""
        for register in range(offset, offset + size):
            byte = value & 0xFF
            value >>= 8
            with self.lock:
                sent = self._write(register, byte)
            # Without the lock: the output function may block, or call receive().
            if sent:
                self._output(bytes((byte,)))

    def save(self) -> dict[str, Any]:
        """Return its state: registers, characters in both directions, and where its line stands."""
        with self.lock:
            state = {name: getattr(self, f"_{name}") for name in self.STATE}
            return state | {
                "incoming": bytes(self._incoming).hex(),
                "fifo": bytes(self._fifo).hex(),
                "polls": min(self._polls, POLLS),  # more of them make no difference
            }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a state over. ``set_irq`` is called when the line changes from then on."""
        check(self, state)
        queues = {name: deque(bytes.fromhex(state[name])) for name in ("incoming", "fifo")}
        with self.lock:
            for name, value in {**state, **queues}.items():
                setattr(self, f"_{name}", value)

    def _read(self, register: int) -> int:
        if self._waits:
            self._note_polling(register)
        match register:
            case 5:  # LSR
                received = LSR_DR if self._fifo else 0
                if self._overrun:
                    self._overrun = False
                    self._update_irq()
                    received |= LSR_OE
                return LSR_THRE | LSR_TEMT | received
            case 0 | 1 if self._lcr & LCR_DLAB:  # DLL, DLM
                return self._divisor >> 8 * register & 0xFF
            case 0:  # RBR
                value = self._fifo.popleft() if self._fifo else 0
                self._looped = self._looped and bool(self._fifo)
                self._timed_out = False
                self._update_irq()
                self._fill_fifo()
                self._update_irq()
                return value
            case 1:  # IER
                return self._ier
            case 2:  # IIR
                identification = self._interrupt()
                if identification == TRANSMITTER_EMPTY:
                    self._transmitter_emptied = False
                    self._update_irq()
                return identification | (IIR_FIFOS if self._fifos_enabled else 0)
            case 3:  # LCR
                return self._lcr
            case 4:  # MCR
                return self._mcr
            case 6:  # MSR
                status = self._msr
                self._msr &= 0xF0
                self._update_irq()
                return status
            case 7:  # SCR
                return self._scr
        return 0xFF

    def _write(self, register: int, value: int) -> bool:
        """Write a register; return whether the value is a character to send."""
        self._polls = 0
        match register:
            case 0 | 1 if self._lcr & LCR_DLAB:  # DLL, DLM
                self._divisor = self._divisor & ~(0xFF << 8 * register) | value << 8 * register
            case 0:  # THR
                self._transmitter_emptied = False
                self._update_irq()
                if self._mcr & MCR_LOOP:
                    self._loop_back(value)
                self._transmitter_emptied = True
                self._update_irq()
                return not self._mcr & MCR_LOOP
            case 1:  # IER
                if value & IER_ETBEI and not self._ier & IER_ETBEI:
                    self._transmitter_emptied = True  # it is empty already
                self._ier = value & 0xF
                if self._waits:
                    if not self._guest_listens():
                        self._requeue()
                    self._fill_fifo()
                self._update_irq()
            case 2:  # FCR
                self._control_fifos(value)
            case 3:  # LCR
                self._lcr = value
            case 4:  # MCR
                self._mcr = value & 0x1F
                self._set_modem_status()
                self._fill_fifo()
                self._update_irq()
            case 7:  # SCR
                self._scr = value
        return False

    def _control_fifos(self, value: int) -> None:
        enabled = bool(value & FCR_ENABLE)
        # Enabling or disabling the FIFOs clears them; FCR_ENABLE off: no other bit counts (8.4).
        if enabled != self._fifos_enabled or (enabled and value & FCR_CLEAR_RECEIVER):
            if self._waits:
                self._requeue()
            self._fifo.clear()
            self._looped = self._timed_out = False
        self._fifos_enabled = enabled
        self._trigger = TRIGGER_LEVELS[value >> 6 & 3] if enabled else 1
        self._update_irq()
        self._fill_fifo()
        self._update_irq()

    def _set_modem_status(self) -> None:
        """Set the inputs in MSR and, in its low bits, which of them have changed (8.8)."""
        if self._mcr & MCR_LOOP:
            inputs = sum(bit for output, bit in _LOOPED.items() if self._mcr & output)
        else:
            inputs = MSR_CTS | MSR_DSR | MSR_DCD
        changed = (inputs ^ self._msr) & 0xF0
        if inputs & MSR_RI:
            changed &= ~MSR_RI  # only the trailing edge of RI counts
        self._msr = inputs | self._msr & 0xF | changed >> 4

    def _capacity(self) -> int:
        return FIFO_SIZE if self._fifos_enabled else 1

    def _fill_fifo(self) -> None:
        """Move queued characters to the FIFO while it has room; not in loopback."""
        if not self._mcr & MCR_LOOP and self._guest_listens():
            while self._incoming and len(self._fifo) < self._capacity():
                self._fifo.append(self._incoming.popleft())
        self._timed_out = bool(self._fifo)

    def _guest_listens(self) -> bool:
        """Whether the guest listens for input."""
        return not self._waits or bool(self._ier & IER_ERBFI) or self._polls >= POLLS

    def _note_polling(self, register: int) -> None:
        if register == LSR:
            self._polls += 1
            if self._polls == POLLS:
                self._fill_fifo()
        elif register != RBR:
            self._polls = 0

    def _requeue(self) -> None:
        """Put the FIFO's characters back into the queue."""
        if not self._looped:
            self._incoming.extendleft(reversed(self._fifo))
            self._fifo.clear()
            self._timed_out = False

    def _loop_back(self, character: int) -> None:
        """Receive a character in loopback; without room one is lost: an overrun (8.5, bit 1)."""
        if len(self._fifo) >= self._capacity():  # a state from outside may have more
            self._overrun = True
            if self._fifos_enabled:
                return
            self._fifo.clear()
        self._fifo.append(character)
        self._looped = self._timed_out = True

    def _interrupt(self) -> int:
        """The pending interrupt of the highest priority, as a value of IIR."""
        if self._ier & IER_ELSI and self._overrun:
            return LINE_STATUS
        if self._ier & IER_ERBFI and self._fifo:
            if len(self._fifo) >= self._trigger:
                return RECEIVED_DATA
            if self._timed_out:
                return CHARACTER_TIMEOUT
        if self._ier & IER_ETBEI and self._transmitter_emptied:
            return TRANSMITTER_EMPTY
        if self._ier & IER_EDSSI and self._msr & 0xF:
            return MODEM_STATUS
        return NO_INTERRUPT

    def _update_irq(self) -> None:
        active = self._interrupt() != NO_INTERRUPT
        if active != self._irq:
            self._irq = active
            if self._set_irq is not None:
                self._set_irq(active)
