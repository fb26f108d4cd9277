"""How records of the raw ABIs print themselves."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable, Iterator
from itertools import chain, groupby
from typing import Any

_MANY = 256
"""How many bytes of an array are shown."""


def shown(record: Any) -> str:
    """A record's ``repr``."""
    return f"{type(record).__name__}({', '.join(_parts(record))})"


def _parts(record: Any) -> Iterator[str]:
    """The members of a record for its ``repr``; for a union, its bytes.

    A small union is often a number and its bit-fields: then the bit-fields are shown.
    """
    kind = type(record)
    if isinstance(record, ctypes.Union):
        size = ctypes.sizeof(record)
        inside = (getattr(record, name) for name in getattr(kind, "_anonymous_", ()))
        alike = [value for value in inside if ctypes.sizeof(value) == size]
        if size <= 8 and len(alike) == 1:
            yield from _parts(alike[0])
        else:
            yield _bytes(bytes(record))
        return
    anonymous = getattr(kind, "_anonymous_", ())
    for name in _members(kind):
        if name.startswith(("_pad_", "_bits_", "_bytes_", "_unit_")):
            continue  # not the header's own
        value = getattr(record, name)
        if name in anonymous:
            yield from _parts(value)
        elif name in kind._names_:
            yield f"{name}={_named(kind.__module__, value, *kind._names_[name])}"
        else:
            yield f"{name}={_shown(value)}"


def _members(kind: Any) -> Iterable[str]:
    """A record's members, in the order of their places."""
    fields = (vars(base).get("_fields_", ()) for base in reversed(kind.__mro__))
    names = [name for name, *_ in chain.from_iterable(fields)]
    if not kind._bits_:
        return names
    places = {name: getattr(kind, name).start for name in kind._bits_}
    places |= {name: getattr(kind, name).offset * 8 for name in names}
    return sorted(places, key=lambda name: places[name])


def _shown(value: Any) -> str:
    if isinstance(value, bytes):
        return _text(value)
    if isinstance(value, bool | float):
        return repr(value)
    if isinstance(value, int):
        return hex(value) if abs(value) > 9 else str(value)
    if isinstance(value, ctypes.Array):
        if value._type_ is ctypes.c_uint8:
            return _bytes(bytes(value))
        return f"[{', '.join(_runs(map(_shown, value)))}]"
    return repr(value)


def _runs(texts: Iterable[str]) -> Iterator[str]:
    """The texts, with repetitions replaced by a count."""
    for text, group in groupby(texts):
        count = len(list(group))
        yield text if count == 1 else f"{text} x {count}"


def _text(chars: bytes) -> str:
    """An array of chars, as text if it is a text and zeros."""
    text = chars.rstrip(b"\0")
    printable = text.isascii() and text.decode("latin-1").isprintable()
    return repr(text) if printable and text else _bytes(chars)


def _bytes(data: bytes) -> str:
    """Bytes in hexadecimal, without trailing zeros; of many only the first."""
    said = data.rstrip(b"\0")
    rest = " 0..." * (0 < len(said) < len(data)) if len(said) <= _MANY else " ..."
    return f"<{len(data)} bytes: {said[:_MANY].hex(' ') or 0}{rest}>"


def _named(module: str, value: int, prefix: str, flags: bool) -> str:
    names = _constants(module, prefix)
    if not flags:
        return names.get(value, hex(value))
    bits = [bit for bit in names if bit & value == bit and bit.bit_count() == 1]
    rest = value & ~sum(bits)
    return "|".join([*map(names.__getitem__, bits), *([_shown(rest)] if rest or not bits else [])])


def _constants(module: str, prefix: str) -> dict[int, str]:
    """The constants of a module with a prefix, by value.

    Those whose names extend another one's belong to that one: KVM_EXIT_IO_IN is not a reason
    for an exit, but the direction of KVM_EXIT_IO.
    """
    found = {n: v for n, v in vars(sys.modules[module]).items() if n.startswith(prefix)}
    plain = {n: v for n, v in found.items() if isinstance(v, int)}
    heads = tuple(f"{name}_" for name in plain)
    return {v: n for n, v in plain.items() if not n.startswith(heads)}
