"""A serial port: the UART that every PC has, and every operating system a driver for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Lock

# The registers by their offset, and their bits (National Semiconductor, PC16550D, June 1995,
# table II). RBR and THR, IIR and FCR share an offset: one is read, the other one written.
RBR = THR = 0
IER = 1
IIR = FCR = 2
LCR = 3
MCR = 4
LSR = 5
MSR = 6
SCR = 7
DLL, DLM = 0, 1
"""In the place of RBR, THR and IER while LCR_DLAB is set."""

IER_ERBFI, IER_ETBEI, IER_ELSI, IER_EDSSI = 0x1, 0x2, 0x4, 0x8
"""Interrupt on: received data, an empty transmitter, a receiver's error, the modem's status."""
FCR_ENABLE, FCR_CLEAR_RECEIVER = 0x1, 0x2
TRIGGER_LEVELS = 1, 4, 8, 14
"""By bits 6 and 7 of FCR: how many characters in the FIFO are worth an interrupt."""
LCR_DLAB = 0x80
MCR_DTR, MCR_RTS, MCR_OUT1, MCR_OUT2, MCR_LOOP = 0x1, 0x2, 0x4, 0x8, 0x10
LSR_DR, LSR_OE, LSR_THRE, LSR_TEMT = 0x1, 0x2, 0x20, 0x40
MSR_CTS, MSR_DSR, MSR_RI, MSR_DCD = 0x10, 0x20, 0x40, 0x80

# What IIR says, by priority (table IV); bits 6 and 7 are set while there are FIFOs.
LINE_STATUS, RECEIVED_DATA, CHARACTER_TIMEOUT, TRANSMITTER_EMPTY, MODEM_STATUS = 6, 4, 12, 2, 0
NO_INTERRUPT = 1
IIR_FIFOS = 0xC0

REGISTERS = 8
"""How many ports one takes."""
FIFO_SIZE = 16
POLLS = 8
"""So many reads of LSR on end are no driver's that prints: it reads LSR once for what it writes."""
DIVISOR_OF_9600 = 12
"""What firmware leaves. Linux divides by it where the command line gives no baud rate."""

_LOOPED = {MCR_DTR: MSR_DSR, MCR_RTS: MSR_CTS, MCR_OUT1: MSR_RI, MCR_OUT2: MSR_DCD}
"""Which outputs become which inputs in loopback (8.6.1)."""


class Serial16550:
    """A 16550A UART (PC16550D), a device of eight ports.

    What the guest sends goes to ``output`` at once, one byte in each call: a prompt does not end
    with a newline, so there is nothing to wait for. ``bytearray().extend`` collects it, and
    ``partial(os.write, 1)`` shows it. :meth:`receive` is what the guest gets. ``set_irq`` is told
    whenever the interrupt line changes.

    A character takes no time on the line: whatever is due happens between two accesses, and the
    interrupt line falls in between as the chip's does, so that edge-triggered interrupts work. The
    line's other end is patient: characters wait until the FIFO has room for them. With
    ``wait_for_listener`` they also wait until the guest listens, by asking for interrupts on
    received data or by polling, and the FIFO's go back to wait if it stops or clears the FIFO:
    Linux' driver (8250) throws away what comes while it probes the chip. Baud rate,
    character length, parity and break have no effect. The interrupt is the chip's INTR: OUT2, which
    on a PC's board connects it, is not asked.
    """

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
        self._lock = Lock()  # for the vCPUs' threads and those that call receive()
        self._incoming: deque[int] = deque()
        """What is on the line, and the FIFO had no room for yet."""
        self._fifo: deque[int] = deque()
        self._waits = wait_for_listener
        self._polls = 0
        """How often LSR was read, but for reads of RBR, since the guest did anything else."""
        self._looped = False
        """Whether the FIFO has characters that came by loopback."""
        self._fifos_enabled = False
        self._trigger = TRIGGER_LEVELS[0]
        self._timed_out = False
        self._overrun = False
        self._transmitter_emptied = False
        """Whether the interrupt for that is due."""
        self._ier = 0
        self._lcr = 0
        self._mcr = 0
        self._msr = MSR_CTS | MSR_DSR | MSR_DCD  # somebody is connected
        self._scr = 0
        self._divisor = DIVISOR_OF_9600

    def receive(self, data: bytes) -> None:
        """Send characters to the guest: from any thread, but from no signal's handler.

        A handler may have interrupted an access, which would wait for it.
        """
        with self._lock:
            self._incoming.extend(data)
            self._take_from_line()
            self._update_irq()

    @property
    def waiting(self) -> int:
        """How many characters that were sent to the guest it has not read yet."""
        return len(self._incoming) + len(self._fifo)

    def read(self, offset: int, size: int) -> int:
        """Read a register; a wide access reads several, as the ISA bus splits it."""
        with self._lock:
            value = self._read(offset)
            for following in range(1, size):
                value |= self._read(offset + following) << 8 * following
            return value

    def write(self, offset: int, size: int, value: int) -> None:
        """Write a register; a wide access writes several, as the ISA bus splits it."""
        for register in range(offset, offset + size):
            byte = value & 0xFF
            value >>= 8
            with self._lock:
                sent = self._write(register, byte)
            # Without the lock: whoever takes output may wait, or answer by receive().
            if sent:
                self._output(bytes((byte,)))

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
                self._take_from_line()
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
        """Write a register; return whether the value went out on the line."""
        self._polls = 0
        match register:
            case 0 | 1 if self._lcr & LCR_DLAB:  # DLL, DLM
                self._divisor = self._divisor & ~(0xFF << 8 * register) | value << 8 * register
            case 0:  # THR
                self._transmitter_emptied = False
                self._update_irq()
                if self._mcr & MCR_LOOP:
                    self._take(value)
                self._transmitter_emptied = True
                self._update_irq()
                return not self._mcr & MCR_LOOP
            case 1:  # IER
                if value & IER_ETBEI and not self._ier & IER_ETBEI:
                    self._transmitter_emptied = True  # it is empty, and that is news again
                self._ier = value & 0xF
                if self._waits:
                    if not self._listens():
                        self._give_back()
                    self._take_from_line()
                self._update_irq()
            case 2:  # FCR
                self._control_fifos(value)
            case 3:  # LCR
                self._lcr = value
            case 4:  # MCR
                self._mcr = value & 0x1F
                self._set_modem_status()
                self._take_from_line()
                self._update_irq()
            case 7:  # SCR
                self._scr = value
        return False

    def _control_fifos(self, value: int) -> None:
        enabled = bool(value & FCR_ENABLE)
        # Switching FIFOs on or off clears them; without FCR_ENABLE no other bit counts (8.4).
        if enabled != self._fifos_enabled or (enabled and value & FCR_CLEAR_RECEIVER):
            if self._waits:
                self._give_back()
            self._fifo.clear()
            self._looped = self._timed_out = False
        self._fifos_enabled = enabled
        self._trigger = TRIGGER_LEVELS[value >> 6 & 3] if enabled else 1
        self._update_irq()
        self._take_from_line()
        self._update_irq()

    def _set_modem_status(self) -> None:
        """Show the inputs in MSR, and in its low bits which of them have changed (8.8)."""
        if self._mcr & MCR_LOOP:
            inputs = sum(bit for output, bit in _LOOPED.items() if self._mcr & output)
        else:
            inputs = MSR_CTS | MSR_DSR | MSR_DCD
        changed = (inputs ^ self._msr) & 0xF0
        if inputs & MSR_RI:
            changed &= ~MSR_RI  # only its end is noted
        self._msr = inputs | self._msr & 0xF | changed >> 4

    def _capacity(self) -> int:
        return FIFO_SIZE if self._fifos_enabled else 1

    def _take_from_line(self) -> None:
        """Let characters come in, as far as there is room; loopback cuts the line."""
        if not self._mcr & MCR_LOOP and self._listens():
            while self._incoming and len(self._fifo) < self._capacity():
                self._fifo.append(self._incoming.popleft())
        self._timed_out = bool(self._fifo)

    def _listens(self) -> bool:
        """Whether the guest takes characters from the line."""
        return not self._waits or bool(self._ier & IER_ERBFI) or self._polls >= POLLS

    def _note_polling(self, register: int) -> None:
        if register == LSR:
            self._polls += 1
            if self._polls == POLLS:
                self._take_from_line()
        elif register != RBR:
            self._polls = 0

    def _give_back(self) -> None:
        """Let the FIFO's characters wait on the line again."""
        if not self._looped:
            self._incoming.extendleft(reversed(self._fifo))
            self._fifo.clear()
            self._timed_out = False

    def _take(self, character: int) -> None:
        """Receive a character that does not wait: without room one is lost (8.5, bit 1)."""
        if len(self._fifo) == self._capacity():
            self._overrun = True
            if self._fifos_enabled:
                return
            self._fifo.clear()
        self._fifo.append(character)
        self._looped = self._timed_out = True

    def _interrupt(self) -> int:
        """What asks for an interrupt and has the highest priority, as IIR says it."""
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
