"""What a target's headers are: whose, of which version, and read with which macros defined."""

from __future__ import annotations

import re

from vmm_arch_gen.extract.toolchain import Toolchain
from vmm_arch_gen.targets import Origin, Target

_PROBE = "__vmm_arch_probe__"
_NUMBER = re.compile(r"\(*(0[xX][0-9a-fA-F]+|[0-9]+)[uUlL]*\)*")
_STRING = re.compile(r'"([\w.+~-]+)"')
_UNKNOWN = "headers of unknown version"


def describe_origin(target: Target, toolchain: Toolchain) -> str:
    """Such as ``Linux 7.2.0 headers, ziglang 0.17.1``, in one line.

    A user's own headers have no version unless the target says where it is.
    """
    version = _version(target.origin, toolchain) if target.origin else None
    if not toolchain.own or not toolchain.package:
        text = version or "headers of unknown version"
    elif not version or not target.origin:
        text = "own headers"
    elif any((folder / target.origin.header).is_file() for folder in toolchain.own):
        text = f"own {version}"
    else:
        text = f"own headers and {version}"
    defines = f"with {', '.join(target.defines)}" if target.defines else ""
    return ", ".join(filter(None, (text, toolchain.package, defines)))


def _version(origin: Origin, toolchain: Toolchain) -> str | None:
    """A name with its version, from macros that are a header's or the compiler's own."""
    header = origin.header
    include = f"#if __has_include(<{header}>)\n#include <{header}>\n#endif\n" if header else ""
    probes = "".join(f"{_PROBE} {macro}\n" for macro in origin.macros)
    text = re.sub(r"^#.*$", "", toolchain.preprocess(include + probes), flags=re.M)
    values = ["".join(value.split()) for value in text.split(_PROBE)[1:]]
    numbers = [_NUMBER.fullmatch(value) or _STRING.fullmatch(value) for value in values]
    if not all(numbers):
        return None
    return f"{origin.name} {'.'.join(number[1] for number in numbers if number)} headers"
