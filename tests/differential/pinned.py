"""Guests that were found, and shrunk: each shows a rule that random guests seldom need."""

from __future__ import annotations

from collections.abc import Mapping

from differential.guests import Guest

_BOTH = ("kvm", "unicorn")
PINNED: Mapping[str, tuple[Guest, str, str]] = {
    "SYSRET shuts down": (Guest("protected", bytes.fromhex("0f07"), steps=1), *_BOTH),
    "ENTER pushes as wide as the stack is": (
        Guest("real", bytes.fromhex("66 c8 90 90 00"), steps=1),
        *_BOTH,
    ),
    "TEST with 1 in ModRM's field": (
        Guest("real", bytes.fromhex("f6 8e f4 f4 f4"), steps=1),
        *_BOTH,
    ),
    "exceptions in exceptions": (
        Guest(
            "protected",
            bytes.fromhex("bc 90 90 90 90 c4 66 57 aa"),
            {"rsi": 0x6000},
            {0x6057: bytes.fromhex("f4 f4 f4 f4 f4 f4")},
            steps=3,
        ),
        *_BOTH,
    ),
    "RET with a signed number": (
        Guest("long", bytes.fromhex("c2 f4 f4"), {"rsp": 0x87F8}, {0x87F8: bytes(8)}, steps=1),
        *_BOTH,
    ),
    "POPA from devices": (
        Guest("protected", bytes.fromhex("61"), {"rsp": 0x28728AA3}, steps=1),
        *_BOTH,
    ),
    "PUSHA to devices": (
        Guest("protected", bytes.fromhex("60"), {"rsp": 0x28728AA4}, steps=1),
        *_BOTH,
    ),
    "SWAPGS outside 64-bit mode": (Guest("real", bytes.fromhex("0f 01 f8"), steps=1), *_BOTH),
    "LOCK where it may not be": (Guest("real", bytes.fromhex("f0 f2 06"), steps=1), *_BOTH),
    "LAHF and SAHF with REX": (
        Guest("long", bytes.fromhex("46 9e"), {"rax": 0xD700}, steps=1),
        *_BOTH,
    ),
    "INT 0x80 and above in real mode": (Guest("real", bytes.fromhex("cd d2"), steps=1), *_BOTH),
    "SGDT and SIDT to devices": (
        Guest("protected", bytes.fromhex("0f 01 05 00 00 10 00"), steps=1),
        *_BOTH,
    ),
    "REP of IN": (Guest("long", bytes.fromhex("f3 e4 f4"), {"rcx": 4}, steps=1), *_BOTH),
    "REP over many rounds, and over itself": (
        Guest("long", bytes.fromhex("f3 6e"), {"rcx": 0x10000, "rsi": 0x6000}, steps=1),
        *_BOTH,
    ),
    "INS tries whether it can write": (
        Guest("long", bytes.fromhex("6c"), {"rdi": 0x100001}, steps=1),
        *_BOTH,
    ),
    "TF of the guest's own": (
        Guest(
            "long", bytes.fromhex("9d 90"), {"rsp": 0x87F8}, {0x87F8: b"\2\1" + bytes(6)}, steps=1
        ),
        *_BOTH,
    ),
    "writes of a pushed segment": (
        Guest("protected", bytes.fromhex("0e"), {"rsp": 0x100104}, steps=1),
        *_BOTH,
    ),
    "no LAR, LSL, VERR, VERW, and far calls and returns not everywhere": (
        Guest("protected", bytes.fromhex("0f 03 f4"), steps=1),
        *_BOTH,
    ),
    "a null segment's type is nothing": (
        Guest("long", bytes.fromhex("8e d8"), steps=1),
        "kvm",
        "whp",
    ),
    "loop to itself": (Guest("long", bytes.fromhex("e2 fe"), {"rcx": 0}, steps=2), *_BOTH),
    "HLT cannot be planted everywhere": (
        Guest("long", bytes.fromhex("eb fe"), steps=1),
        "kvm",
        "whp",
    ),
    "nowhere to go": (
        Guest("protected", bytes.fromhex("bc 90 90 90 90 0f 0b"), steps=2),
        *_BOTH,
    ),
    "MOV to CS": (
        Guest("long", bytes.fromhex("8e 89 f4 f4 f4 f4"), {"rcx": 0}, steps=1),
        *_BOTH,
    ),
    "AC in exceptions": (
        Guest("protected", bytes.fromhex("0f 0b"), {"rflags": 0x40002}, steps=1),
        *_BOTH,
    ),
    "segments stored as wide as REX says": (
        Guest("long", bytes.fromhex("4b 8c 02"), {"r10": 0x6000}, steps=1),
        *_BOTH,
    ),
}
