"""The serial port, register by register, as the PC16550D's datasheet and Linux's driver have it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vmm_arch.devices.serial import (
    DLL,
    DLM,
    FCR,
    IER,
    IIR,
    LCR,
    LCR_DLAB,
    LSR,
    LSR_DR,
    LSR_OE,
    LSR_TEMT,
    LSR_THRE,
    MCR,
    MCR_LOOP,
    MSR,
    RBR,
    SCR,
    THR,
    Serial16550,
)

IDLE = LSR_THRE | LSR_TEMT
RECEIVED, EMPTIED, ERROR, MODEM = 1, 2, 4, 8  # the bits of IER


@dataclass
class Port:
    """A serial port as a guest uses it, with all that comes out of it."""

    sent: bytearray = field(default_factory=bytearray)
    irqs: list[bool] = field(default_factory=list)
    """Every change of the interrupt line."""

    def __post_init__(self) -> None:
        self.uart = Serial16550(self.sent.extend, self.irqs.append)

    @property
    def irq(self) -> bool:
        return self.irqs[-1] if self.irqs else False

    def read(self, register: int) -> int:
        return self.uart.read(register, 1)

    def write(self, register: int, value: int) -> None:
        self.uart.write(register, 1, value)

    def reads(self) -> bytes:
        """Read all characters that are there."""
        data = bytearray()
        while self.read(LSR) & LSR_DR:
            data.append(self.read(RBR))
        return bytes(data)


@pytest.fixture
def port() -> Port:
    return Port()


# Registers


def test_after_a_reset(port: Port) -> None:
    """Table III; where the modem's status is what is connected, and the divisor is not reset."""
    registers = [port.read(register) for register in (IER, IIR, LCR, MCR, LSR, MSR)]
    assert registers == [0, 1, 0, 0, IDLE, 0xB0]
    assert not port.irq


@pytest.mark.parametrize(("register", "kept"), [(IER, 0x0F), (LCR, 0x7F), (MCR, 0x1F), (SCR, 0xFF)])
def test_what_a_register_keeps(port: Port, register: int, kept: int) -> None:
    for value in (0xFF & ~LCR_DLAB if register == LCR else 0xFF, 0x55, 0xAA & kept, 0):
        port.write(register, value)
        assert port.read(register) == value & kept


@pytest.mark.parametrize("register", [LSR, MSR])
def test_status_cannot_be_written(port: Port, register: int) -> None:
    before = port.read(register)
    port.write(register, 0xFF)
    assert port.read(register) == before


def test_the_divisor_is_in_the_place_of_data_and_ier_while_dlab_is_set(port: Port) -> None:
    port.write(IER, RECEIVED)
    port.write(LCR, LCR_DLAB | 3)
    assert (port.read(DLL), port.read(DLM)) == (12, 0)  # 9600 baud
    port.write(DLL, 0x34)
    port.write(DLM, 0x12)
    assert (port.read(DLL), port.read(DLM)) == (0x34, 0x12)
    port.write(LCR, 3)
    assert (port.read(RBR), port.read(IER)) == (0, RECEIVED)
    assert port.sent == b""


def test_a_wide_access_is_several_registers(port: Port) -> None:
    port.uart.write(LCR, 1, LCR_DLAB)
    port.uart.write(DLL, 2, 0x0123)
    assert port.uart.read(DLL, 2) == 0x0123
    assert port.uart.read(SCR, 4) == 0xFFFFFF00  # beyond the last one there is nothing
    port.uart.write(SCR, 2, 0xFFAB)
    assert port.read(SCR) == 0xAB


# Sending


def test_what_is_written_goes_out_byte_by_byte_at_once() -> None:
    calls: list[bytes] = []
    uart = Serial16550(calls.append)
    for character in b"login: ":
        assert uart.read(LSR, 1) & IDLE == IDLE
        uart.write(THR, 1, character)
    assert calls == [b"l", b"o", b"g", b"i", b"n", b":", b" "]


def test_enabling_its_interrupt_finds_the_transmitter_empty(port: Port) -> None:
    port.write(IER, EMPTIED)
    assert port.irq
    assert port.read(IIR) == 0x02
    assert not port.irq  # reading IIR took it back
    assert port.read(IIR) == 0x01


def test_enabling_it_again_finds_it_empty_again_but_only_after_disabling(port: Port) -> None:
    port.write(IER, EMPTIED)
    port.read(IIR)
    port.write(IER, EMPTIED)
    assert not port.irq
    port.write(IER, 0)
    port.write(IER, EMPTIED)
    assert port.irq


def test_writing_takes_the_interrupt_back_and_having_sent_brings_the_next(port: Port) -> None:
    """An edge each time, also for a driver that never reads IIR."""
    port.write(IER, EMPTIED)
    port.write(THR, ord("a"))
    port.write(THR, ord("b"))
    assert port.irqs == [True, False, True, False, True]
    port.write(IER, 0)
    assert not port.irq


def test_polling_makes_no_interrupts(port: Port) -> None:
    for character in b"earlyprintk":
        port.write(THR, character)
    assert port.sent == b"earlyprintk"
    assert port.irqs == []


def test_an_output_may_answer() -> None:
    """As a script does that waits for a prompt."""

    def answer(data: bytes) -> None:
        uart.receive(data.upper())

    uart = Serial16550(answer)
    uart.write(THR, 1, ord("x"))
    assert uart.read(RBR, 1) == ord("X")


def test_an_output_that_fails_leaves_the_port_as_if_it_had_not() -> None:
    def fail(data: bytes) -> None:
        raise BrokenPipeError

    irqs: list[bool] = []
    uart = Serial16550(fail, irqs.append)
    uart.write(IER, 1, EMPTIED)
    with pytest.raises(BrokenPipeError):
        uart.write(THR, 1, 0)
    assert irqs == [True, False, True]
    assert uart.read(IIR, 1) == 2


# Receiving


def test_a_character_is_received(port: Port) -> None:
    port.uart.receive(b"a")
    assert port.read(LSR) == IDLE | LSR_DR
    assert port.read(RBR) == ord("a")
    assert port.read(LSR) == IDLE
    assert port.irqs == []


def test_a_character_interrupts_until_it_is_read(port: Port) -> None:
    port.write(IER, RECEIVED)
    port.uart.receive(b"a")
    assert port.irq
    assert port.read(IIR) == 0x04
    assert port.irq  # reading IIR does not take it back
    port.read(RBR)
    assert not port.irq
    assert port.read(IIR) == 0x01


def test_a_character_that_was_there_before_interrupts_once_enabled(port: Port) -> None:
    port.uart.receive(b"a")
    port.write(IER, RECEIVED)
    assert port.irq


def test_without_fifos_each_character_makes_an_edge(port: Port) -> None:
    port.write(IER, RECEIVED)
    port.uart.receive(b"abc")
    assert port.reads() == b"abc"
    assert port.irqs == [True, False] * 3


@pytest.mark.parametrize(("fcr", "level"), [(0x01, 1), (0x41, 4), (0x81, 8), (0xC1, 14)])
def test_the_trigger_level_tells_data_from_a_timeout(port: Port, fcr: int, level: int) -> None:
    port.write(FCR, fcr)
    port.write(IER, RECEIVED)
    port.uart.receive(bytes(level - 1))
    if level > 1:
        assert port.read(IIR) == 0xCC  # a few that nothing follows: the timeout
    port.uart.receive(b"\0")
    assert port.read(IIR) == 0xC4
    assert port.irq
    assert port.reads() == bytes(level)
    assert not port.irq
    assert port.irqs.count(True) == level  # below the level each read ends a timeout


def test_characters_wait_on_the_line_until_there_is_room(port: Port) -> None:
    port.write(FCR, 1)
    data = bytes(range(100))
    port.uart.receive(data[:50])
    port.uart.receive(data[50:])
    assert port.reads() == data
    assert not port.read(LSR) & LSR_OE


def test_clearing_the_fifo_leaves_what_is_on_the_line(port: Port) -> None:
    port.write(FCR, 1)
    port.uart.receive(bytes(range(20)))
    port.write(FCR, 3)
    assert port.reads() == bytes(range(16, 20))


def test_switching_fifos_on_and_off_clears_them(port: Port) -> None:
    for fcr in (1, 0):
        port.uart.receive(b"a")
        port.write(FCR, fcr)
        assert port.reads() == b""


def test_a_fifo_control_without_enable_does_nothing_else(port: Port) -> None:
    port.uart.receive(b"a")
    port.write(FCR, 0xC2)
    assert port.reads() == b"a"
    assert port.read(IIR) == 0x01


def test_another_thread_sends_while_the_guest_reads(port: Port) -> None:
    port.write(FCR, 1)
    port.write(IER, RECEIVED)
    data = bytes(range(256)) * 20

    def send() -> None:
        for at in range(0, len(data), 7):
            port.uart.receive(data[at : at + 7])

    sender = threading.Thread(target=send)
    sender.start()
    got = bytearray()
    while sender.is_alive() or port.read(LSR) & LSR_DR:
        got += port.reads()
    sender.join()
    assert got == data
    assert not port.irq
    assert all(before != after for before, after in zip(port.irqs, port.irqs[1:], strict=False))


# Priorities, errors, loopback


def test_interrupts_come_by_priority(port: Port) -> None:
    """Table IV: the receiver's errors, data, the transmitter, the modem."""
    port.write(MCR, MCR_LOOP)
    port.write(THR, 1)
    port.write(THR, 2)  # no room
    port.write(IER, ERROR | RECEIVED | EMPTIED | MODEM)
    assert port.read(IIR) == 0x06
    assert port.read(LSR) == IDLE | LSR_DR | LSR_OE
    assert port.read(IIR) == 0x04
    assert port.read(RBR) == 2
    assert port.read(IIR) == 0x02
    assert port.irq
    assert port.read(IIR) == 0x00
    assert port.read(MSR) == 0x0B  # CTS, DSR and DCD fell when the plug was pulled
    assert not port.irq
    assert port.read(IIR) == 0x01


def test_reading_iir_takes_only_back_what_it_says(port: Port) -> None:
    port.uart.receive(b"a")
    port.write(IER, RECEIVED | EMPTIED)
    assert port.read(IIR) == 0x04
    port.read(RBR)
    assert port.read(IIR) == 0x02


def test_loopback_connects_outputs_and_inputs(port: Port) -> None:
    """8.6.1: DTR to DSR, RTS to CTS, OUT1 to RI, OUT2 to DCD; their changes are noted."""
    wires = [(0x1, 0x20), (0x2, 0x10), (0x4, 0x40), (0x8, 0x80)]
    for output, wired in wires:
        port.write(MCR, MCR_LOOP | output)
        assert port.read(MSR) & 0xF0 == wired
        port.write(MCR, MCR_LOOP)
        assert port.read(MSR) == wired >> 4
        assert port.read(MSR) == 0
    port.write(MCR, 0)
    assert port.read(MSR) == 0xBB
    assert port.read(MSR) == 0xB0


def test_the_beginning_of_a_ring_is_not_noted(port: Port) -> None:
    port.write(MCR, MCR_LOOP)
    port.read(MSR)
    port.write(MCR, MCR_LOOP | 4)
    assert port.read(MSR) == 0x40


def test_loopback_cuts_the_line(port: Port) -> None:
    port.write(FCR, 1)
    port.write(MCR, MCR_LOOP)
    port.uart.receive(b"from outside")
    for character in b"inside":
        port.write(THR, character)
    assert port.reads() == b"inside"
    assert port.sent == b""
    port.write(MCR, 0)
    assert port.reads() == b"from outside"


@pytest.mark.parametrize(("fcr", "kept"), [(1, bytes(range(16))), (0, b"\x13")])
def test_characters_without_room_are_lost(port: Port, fcr: int, kept: bytes) -> None:
    """8.5, bit 1: the FIFO keeps what it has; without FIFOs the last character wins."""
    port.write(FCR, fcr)
    port.write(MCR, MCR_LOOP)
    for character in range(20):
        port.write(THR, character)
    assert port.read(LSR) & LSR_OE
    assert not port.read(LSR) & LSR_OE
    assert port.reads() == kept


# What Linux does (drivers/tty/serial/8250/8250_port.c)


def test_linux_finds_a_16550a(port: Port) -> None:
    """autoconfig() and autoconfig_16550a(), step by step, with an earlycon's port before it."""
    # The interrupt enable register can be written.
    saved_ier = port.read(IER)
    port.write(IER, 0)
    assert port.read(IER) & 0xF == 0
    port.write(IER, 0xF)
    assert port.read(IER) & 0xF == 0xF
    port.write(IER, saved_ier)

    # The loopback test.
    saved_mcr, saved_lcr = port.read(MCR), port.read(LCR)
    port.write(MCR, MCR_LOOP | 0x0A)
    assert port.read(MSR) & 0xF0 == 0x90
    port.write(MCR, saved_mcr)

    # FIFOs, so neither 8250, 16450 nor the broken 16550.
    port.write(LCR, 0xBF)
    port.write(FCR, 0)  # the EFR, where there is one
    port.write(LCR, 0)
    port.write(FCR, 0x01)
    assert port.read(IIR) >> 6 == 3

    # No EFR in the place of IIR: no 16650, no 16750's ancestors.
    port.write(LCR, 0x80)
    assert port.read(IIR) != 0
    port.write(LCR, 0xBF)
    assert port.read(IIR) != 0

    # No second bank with EXCR1, which would show the loop bit: no National SuperIO.
    port.write(LCR, 0)
    mcr = port.read(MCR)
    port.write(LCR, 0xE0)
    bank2 = port.read(IIR)
    if not (bank2 ^ mcr) & MCR_LOOP:
        port.write(LCR, 0)
        port.write(MCR, mcr ^ MCR_LOOP)
        port.write(LCR, 0xE0)
        bank2 = port.read(IIR)
        port.write(LCR, 0)
        port.write(MCR, mcr)
        assert not (bank2 ^ mcr) & MCR_LOOP

    # No FIFO of 64 bytes, which DLAB would switch on: no TI 16750.
    found = []
    for lcr in (0, 0x80):
        port.write(LCR, lcr)
        port.write(FCR, 0x21)
        found.append(port.read(IIR) >> 5)
        port.write(FCR, 0x01)
    port.write(LCR, 0)
    assert found == [6, 6]

    # No unit enable bit: no XScale.
    port.write(IER, 0x40)
    assert not port.read(IER) & 0x40
    port.write(IER, 0)

    # size_fifo(): 16, so no U6 16550A.
    port.write(FCR, 0x07)
    port.write(MCR, MCR_LOOP)
    port.write(LCR, 0x80)
    divisor = port.read(DLL), port.read(DLM)
    port.write(DLL, 1)
    port.write(DLM, 0)
    port.write(LCR, 0x03)
    for count in range(256):
        port.write(THR, count)
    assert len(port.reads()) == 16
    port.write(MCR, saved_mcr)
    port.write(LCR, 0x80)
    port.write(DLL, divisor[0])
    port.write(DLM, divisor[1])
    port.write(LCR, saved_lcr)

    # serial8250_clear_fifos()
    for fcr in (0x01, 0x07, 0x00):
        port.write(FCR, fcr)
    port.read(RBR)
    port.write(IER, 0)
    assert port.sent == b""
    assert not port.irq


def test_linux_starts_the_port_without_workarounds(port: Port) -> None:
    """serial8250_do_startup(): it looks for UART_BUG_THRE and for UART_BUG_TXEN."""
    for register in (LSR, RBR, IIR, MSR):
        port.read(register)
    assert port.read(LSR) != 0xFF

    found = []
    for _ in range(2):
        assert port.read(LSR) & LSR_THRE
        port.write(IER, EMPTIED)
        found.append(port.read(IIR))
        port.write(IER, 0)
    assert found == [2, 2]  # it asserts itself again

    port.write(LCR, 0x03)
    port.write(MCR, 0x08)
    port.write(IER, EMPTIED)
    status, identification = port.read(LSR), port.read(IIR)
    port.write(IER, 0)
    assert status & LSR_TEMT
    assert not identification & 1


@dataclass
class EdgeTriggered:
    """A guest behind an 8259A: a rising edge is remembered, and its handler runs when it can."""

    handler: Callable[[], None]
    pending: bool = False

    def set_irq(self, active: bool) -> None:
        self.pending |= active

    def takes_interrupts(self) -> None:
        while self.pending:
            self.pending = False
            self.handler()


@settings(deadline=None)
@given(
    to_send=st.binary(max_size=60),
    to_receive=st.lists(st.binary(min_size=1, max_size=30), max_size=4),
    fcr=st.sampled_from([0x00, 0x01, 0x41, 0x81, 0xC1]),
    burst=st.sampled_from([1, 16]),
)
def test_an_edge_triggered_driver_sends_and_receives_all(
    to_send: bytes, to_receive: list[bytes], fcr: int, burst: int
) -> None:
    """One that, as it has to, goes on until IIR says that there is nothing more."""
    sent, received, queue = bytearray(), bytearray(), list(to_send)

    def handler() -> None:
        while not (identification := uart.read(IIR, 1)) & 1:
            match identification & 0xF:
                case 0x4 | 0xC:
                    received.append(uart.read(RBR, 1))
                case 0x2 if queue:
                    for character in queue[:burst]:
                        uart.write(THR, 1, character)
                    del queue[:burst]

    guest = EdgeTriggered(handler)
    uart = Serial16550(sent.extend, guest.set_irq)
    uart.write(FCR, 1, fcr)
    uart.write(IER, 1, RECEIVED | EMPTIED)
    for data in to_receive:
        uart.receive(data)
        guest.takes_interrupts()
    guest.takes_interrupts()
    assert sent == to_send
    assert received == b"".join(to_receive)


@settings(deadline=None)
@given(data=st.binary(max_size=60))
def test_one_character_for_each_edge_is_enough_without_fifos(data: bytes) -> None:
    """For a driver of one direction that never looks at IIR."""
    sent, received, queue = bytearray(), bytearray(), list(data)

    def send() -> None:
        if queue:
            sender.write(THR, 1, queue.pop(0))

    guest = EdgeTriggered(send)
    sender = Serial16550(sent.extend, guest.set_irq)
    sender.write(IER, 1, EMPTIED)
    guest.takes_interrupts()
    assert sent == data

    guest = EdgeTriggered(lambda: received.append(receiver.read(RBR, 1)))
    receiver = Serial16550(sent.extend, guest.set_irq)
    receiver.write(IER, 1, RECEIVED)
    receiver.receive(data)
    guest.takes_interrupts()
    assert received == data


accesses = st.one_of(
    st.tuples(st.just("read"), st.integers(0, 7), st.just(0)),
    st.tuples(st.just("write"), st.integers(0, 7), st.integers(0, 255)),
    st.tuples(st.just("write"), st.just(IER), st.integers(0, 15)),
    st.tuples(st.just("write"), st.sampled_from([LCR, MCR]), st.sampled_from([0, 3])),
    st.tuples(st.just("receive"), st.integers(0, 20), st.integers(0, 255)),
)


@settings(deadline=None)
@given(st.lists(accesses, max_size=60))
def test_any_sequence_of_accesses(sequence: list[tuple[str, int, int]]) -> None:
    """Nothing is raised, what is sent comes out, and the interrupt line is what IIR says."""
    port = Port()
    expected = bytearray()
    for action, where, value in sequence:
        match action:
            case "receive":
                port.uart.receive(bytes([value]) * where)
            case "write":
                held = port.read(LCR) & LCR_DLAB or port.read(MCR) & MCR_LOOP
                port.write(where, value)
                if where == THR and not held:
                    expected.append(value)
            case "read":
                irq = port.irq
                got = port.read(where)
                assert 0 <= got <= 0xFF
                if where == IIR:
                    assert irq == (not got & 1)
    assert port.sent == expected
    assert all(before != after for before, after in zip(port.irqs, port.irqs[1:], strict=False))


# Input that waits until the guest listens


@pytest.fixture
def patient() -> Serial16550:
    return Serial16550(bytearray().extend, wait_for_listener=True)


def read_all(serial: Serial16550) -> bytes:
    """What a driver reads that was told of received data."""
    found = bytearray()
    while serial.read(5, 1) & 1:
        found.append(serial.read(0, 1))
    return bytes(found)


def test_without_a_listener_nothing_comes(patient: Serial16550) -> None:
    patient.receive(b"typed")
    assert patient.waiting == 5
    for _ in range(100):  # a driver that prints looks at LSR before each character
        assert patient.read(5, 1) == 0x60
        patient.write(0, 1, ord("x"))
    assert patient.read(0, 1) == 0
    assert patient.waiting == 5


def test_a_driver_that_wants_interrupts_listens(patient: Serial16550) -> None:
    patient.receive(b"typed")
    patient.write(1, 1, 0x2)  # of the transmitter only
    assert not patient.read(5, 1) & 1
    patient.write(1, 1, 0x1)
    assert read_all(patient) == b"typed"
    patient.receive(b"more")
    assert read_all(patient) == b"more"
    assert patient.waiting == 0


def test_a_driver_that_polls_listens(patient: Serial16550) -> None:
    patient.receive(b"typed")
    found = bytearray()
    for _ in range(200):
        if patient.read(5, 1) & 1:
            found.append(patient.read(0, 1))
            patient.write(0, 1, found[-1])  # its echo
    assert found == b"typed"


def test_what_linux_throws_away_while_it_probes_is_not_lost(patient: Serial16550) -> None:
    """autoconfig() and serial8250_do_startup() in drivers/tty/serial/8250/8250_port.c."""
    interrupts: list[bool] = []
    serial = Serial16550(bytearray().extend, interrupts.append, wait_for_listener=True)
    text = bytes(range(1, 100))
    serial.receive(text)
    serial.write(1, 1, 0x0F)  # is there an IER?
    serial.write(1, 1, 0x00)
    serial.write(4, 1, 0x10)  # loopback: does MSR follow MCR?
    serial.write(4, 1, 0x00)
    for control in (0x01, 0x07, 0x00):  # FIFOs on, cleared, off
        serial.write(2, 1, control)
    for register in (5, 0, 2, 6):  # what may be pending
        serial.read(register, 1)
    serial.write(2, 1, 0x81)
    serial.write(1, 1, 0x05)
    assert interrupts[-1]
    assert read_all(serial) == text


def test_a_driver_that_stops_listening_leaves_the_rest_for_the_next(patient: Serial16550) -> None:
    patient.write(2, 1, 0x01)
    patient.write(1, 1, 0x01)
    patient.receive(b"first")
    assert patient.read(0, 1) == ord("f")
    patient.write(1, 1, 0x00)
    assert not patient.read(5, 1) & 1
    assert patient.read(0, 1) == 0
    patient.write(2, 1, 0x07)
    patient.write(1, 1, 0x01)
    assert read_all(patient) == b"irst"


def test_what_came_by_loopback_does_not_go_back_to_the_line(patient: Serial16550) -> None:
    patient.write(4, 1, 0x10)
    patient.write(0, 1, ord("x"))
    assert patient.read(5, 1) & 1
    patient.write(2, 1, 0x07)
    patient.write(4, 1, 0x00)
    patient.write(1, 1, 0x01)
    assert read_all(patient) == b""


def test_without_the_option_the_chip_does_as_the_chip_does() -> None:
    serial = Serial16550(bytearray().extend)
    serial.receive(b"t")
    assert serial.read(5, 1) & 1
    serial.write(2, 1, 0x07)
    assert not serial.read(5, 1) & 1
