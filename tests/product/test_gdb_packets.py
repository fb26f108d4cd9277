"""Packets of gdb's protocol: taken apart from any bytes, in any pieces."""

from __future__ import annotations

from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vmm_arch.debug.packets import (
    LONGEST,
    Damaged,
    Event,
    Interrupt,
    Malformed,
    Packet,
    Parser,
    Resend,
    from_hex,
    number,
    packet,
)

PIECES = st.lists(
    st.one_of(
        st.binary(max_size=20),
        st.sampled_from([b"$", b"#", b"}", b"\x03", b"+", b"-", b"00", packet(b"g"), b"$g#67"]),
    ),
    max_size=20,
)


def events(*pieces: bytes) -> list[Event]:
    parser = Parser()
    return [event for piece in pieces for event in parser.feed(piece)]


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_what_is_sent_arrives(contents: list[bytes]) -> None:
    sent = b"+".join(map(packet, contents))
    assert events(sent) == [Packet(content) for content in contents]
    assert events(*(bytes([byte]) for byte in sent)) == [Packet(content) for content in contents]


@given(PIECES)
def test_any_bytes_are_the_same_in_any_pieces(pieces: list[bytes]) -> None:
    whole = reduce(bytes.__add__, pieces, b"")
    assert events(*pieces) == events(whole)


@given(PIECES, st.binary(max_size=20))
def test_a_packet_arrives_whatever_came_before(pieces: list[bytes], content: bytes) -> None:
    """The second at the latest: the first may be taken for the checksum of what was there."""
    found = events(*pieces, packet(b"qC"), packet(content))
    assert found[-1] == Packet(content)


def test_single_bytes_and_damage() -> None:
    assert events(b"+\x03-junk$g#67") == [Interrupt(), Resend(), Packet(b"g")]
    assert events(b"$g#68", b"$g#zz") == [Damaged(), Damaged()]
    assert events(b"$lost$g#67") == [Packet(b"g")]
    assert events(b"$" + b"a" * (LONGEST + 1) + b"#00", b"$g#67") == [Damaged(), Packet(b"g")]


def test_a_packet_without_end_is_not_kept() -> None:
    parser = Parser()
    for _ in range(100):
        assert not list(parser.feed(b"$" + b"a" * LONGEST))
    assert len(parser._data or b"") <= LONGEST + 1


@pytest.mark.parametrize("text", [b"", b"+1", b"0x1", b" 1", b"1_0", b"1" * 17, b"g", b"\xb2"])
def test_what_is_no_number(text: bytes) -> None:
    with pytest.raises(Malformed):
        number(text)
    if text:
        with pytest.raises(Malformed):
            from_hex(text[:1])


def test_numbers() -> None:
    assert (number(b"fFfF"), number(b"f" * 16)) == (0xFFFF, 2**64 - 1)
    assert from_hex(b"00ff") == b"\x00\xff"
