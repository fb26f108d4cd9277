"""The programs that the README shows, taken out of it as they stand there."""

from __future__ import annotations

import re
from pathlib import Path


def boots_linux(checkout: Path, backend: str) -> str:
    """The program that boots a Linux, over this backend instead of the one that it names."""
    text = (checkout / "README.md").read_text()
    found = re.search(r"```python\n(import os\n.*?serve.*?)```", text, re.S)
    assert found is not None, "the README shows no program that boots Linux"
    program = found[1]
    assert program.count("kvm_x86_64 as arch") == 1
    return program.replace("kvm_x86_64 as arch", f"{backend} as arch")
