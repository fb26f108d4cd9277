"""Bochs, from Debian's packages, unpacked into a cache folder and with one fault mended.

Bochs and not QEMU, since QEMU interprets no VMX. Version 3.0: bookworm's 2.7 takes 1.7 times as
long, and under sid's 3.1 Linux 6.1 divides by zero.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vmm_arch_gen.fetch import debian
from vmm_arch_gen.fetch.debian import Unavailable
from vmm_arch_gen.fetch.kept import cache_folder, kept

SUITE = "trixie"
# GTK with all that it needs is for the window of the debugger, which is never opened.
PACKAGES = """
    bochs bochs-term bochsbios vgabios ncurses-base libc6 libgcc-s1 libstdc++6 libatomic1 libltdl7
    libreadline8t64 libsamplerate0 libncurses6 libtinfo6 libgtk-3-0t64 libglib2.0-0t64
    libpango-1.0-0 libpangocairo-1.0-0 libpangoft2-1.0-0 libcairo2 libcairo-gobject2
    libgdk-pixbuf-2.0-0 libatk1.0-0t64 libatk-bridge2.0-0t64 libatspi2.0-0t64 libharfbuzz0b
    libfribidi0 libgraphite2-3 libfontconfig1 libfreetype6 libthai0 libdatrie1 libpixman-1-0
    libpng16-16t64 libjpeg62-turbo libbrotli1 libbz2-1.0 libexpat1 libffi8 zlib1g libpcre2-8-0
    libepoxy0 libcloudproviders0 libdbus-1-3 libsystemd0 libcap2 libmount1 libblkid1 libselinux1
    libasound2t64 libx11-6 libxau6 libxdmcp6 libxcb1 libxcb-render0 libxcb-shm0 libxext6 libxi6
    libxrender1 libxrandr2 libxcursor1 libxdamage1 libxfixes3 libxinerama1 libxcomposite1
    libxkbcommon0 libwayland-client0 libwayland-cursor0 libwayland-egl1
"""
_TRIPLET = "x86_64-linux-gnu"
_BINARY, _MENDED = "usr/bin/bochs-bin", "usr/bin/bochs-mended"


@dataclass(frozen=True)
class Bochs:
    """Bochs as it is started: by its own C library's loader."""

    root: Path

    @property
    def command(self) -> list[str]:
        loader, libraries = "usr/lib64/ld-linux-x86-64.so.2", self.root / "usr/lib" / _TRIPLET
        program = str(self.root / _MENDED)
        return [str(self.root / loader), "--library-path", str(libraries), program]

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LTDL_LIBRARY_PATH": str(self.root / "usr/lib" / _TRIPLET / "bochs/plugins"),
            "TERM": "xterm",
            "TERMINFO": str(self.root / "usr/share/terminfo"),
        }

    @property
    def bios(self) -> Path:
        return self.root / "usr/share/bochs/BIOS-bochs-latest"

    @property
    def vga_bios(self) -> Path:
        return self.root / "usr/share/vgabios/vgabios.stdvga.bin"


@cache
def find_bochs() -> Bochs:
    """Bochs, fetched on first use."""
    if os.uname().machine != "x86_64":
        raise Unavailable("Bochs comes from Debian's packages for x86_64")
    key = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    return Bochs(kept("bochs", key, _make, cache_folder("nested")))


def _make(root: Path) -> None:
    with debian.suite(SUITE) as packages:
        packages.unpack(PACKAGES.split(), root)
    (root / _MENDED).write_bytes(mended((root / _BINARY).read_bytes()))
    (root / _MENDED).chmod(0o755)


# A guest of the machine that spins with IF = 0 can never be interrupted, not even by the machine's
# own timer, and everything hangs: KVM's user kicks it in vain. By Intel's manual (volume 3,
# "External-interrupt exiting") such an interrupt leaves the guest whatever IF is. But Bochs masks
# external interrupts by IF while it loads the guest's state, before it notes that the CPU is in a
# guest now, and does not look again: handleCpuContextChange() in VMenterLoadCheckGuestState(), and
# behind it, in VMLAUNCH, these statements (cpu/vmx.cc, in every version up to August 2026):
#
#     unmask_event(BX_EVENT_INIT);
#     BX_CPU_THIS_PTR in_vmx_guest = true;
#     if (is_pending(BX_EVENT_INIT)) BX_CPU_THIS_PTR async_event = 1;
#
# The mended ones unmask external interrupts too, and look for any event: the operand grows by three
# bytes, for which the test, 13 bytes, makes room.
_VM_ENTRY = re.compile(
    rb"\x83([\xa0-\xa7])(....)\xfb"  # and dword [event_mask], ~INIT
    rb"\xc6([\x80-\x87])(....)\x01"  # mov byte [in_vmx_guest], 1
    rb"\xf6[\x80-\x87]....\x04\x74\x0a"  # test byte [pending_event], INIT; jz behind the next one
    rb"\xc7([\x80-\x87])(....)\x01\0\0\0",  # mov dword [async_event], 1
    re.DOTALL,
)
_INIT, _INTERRUPT, _LOCAL_APIC = 1 << 2, 1 << 10, 1 << 11
"""BX_EVENT_INIT, BX_EVENT_PENDING_INTR, BX_EVENT_PENDING_LAPIC_INTR: cpu/cpu.h."""


def mended(program: bytes) -> bytes:
    """Bochs with the fault mended; raise Unavailable if it is not the Bochs that has it."""
    sites = list(_VM_ENTRY.finditer(program))
    if len(sites) != 1:
        raise Unavailable(f"Bochs' VM entry is at {len(sites)} places of its program, not at one")
    mask_operand, mask, guest_operand, guest, event_operand, event = sites[0].groups()
    unmasked = (~(_INIT | _INTERRUPT | _LOCAL_APIC) & 0xFFFFFFFF).to_bytes(4, "little")
    code = b"\x81" + mask_operand + mask + unmasked
    code += b"\xc6" + guest_operand + guest + b"\x01"
    code += b"\xc7" + event_operand + event + b"\x01\0\0\0"
    start, end = sites[0].span()
    nop = b"\x90"
    return program[:start] + code.ljust(end - start, nop) + program[end:]
