"""A CPU and two hypervisors small enough to read at a glance, for tests of the generator.

``register`` has a call for each group of state, ``batch`` one call for everything.
"""

from __future__ import annotations

from pathlib import Path

CPU = "toy"

CONTRACT = '''
from typing import Any, Protocol, TypeVar

RegsT = TypeVar("RegsT", bound=Any)

class Vcpu(Protocol[RegsT]):
    """A CPU."""

    def set_regs(self, regs: RegsT) -> None:
        """Write the registers."""

    def run(self) -> int:
        """Run it."""

EFFECTS = {"set_regs": ("completes pending", "changes state"), "run": ()}

class Vm(Protocol):
    """A machine."""

    def close(self) -> None:
        """Close it."""

class Host(Protocol):
    """The host."""

    def probe(self) -> str:
        """Say what it can do."""

class Backend(Host, Protocol):
    """A module."""

    def Vm(self, size: int) -> Vm:
        """Make one."""
'''

VOCABULARY = '''
from typing import NamedTuple

class SegmentValue(NamedTuple):
    """A segment."""

    selector: int
    base: int
    limit: int
    attributes: int

STATE = {
    "general": {"pc": 0x100, "sp": 0},
    "modes": {"code": SegmentValue(8, 0, 0xFFFF, 0x9B), "paging": 0},
}
'''

STATES = """
STATES = {
    "boot": {"pc": "entry.address", "paging": "PAGING_OFF"},
    "paged": {"extends": "boot", "paging": "PAGING_ON", "code": (16, "entry.base", 0xFFFF, 0x9B)},
}
MODES = {"boot": "Flat", "paged": "Paged"}
INIT_KEEPS = ("modes",)
"""

_SECTIONS = {
    "module.py.j2": """
{% macro summary() %}A toy{% endmacro %}
{% macro machines_per_process() %}None{% endmacro %}
{% macro records() %}{% endmacro %}
""",
    "vcpu.py.j2": "{% macro vcpu_members() %}{% endmacro %}",
}
_SHARED = """
{% macro run(vcpu) %}return go({{ vcpu }}){% endmacro %}
{% macro create_vm(vm) %}pass{% endmacro %}
{% macro probe() %}return "fine"{% endmacro %}
"""

REGISTER = _SECTIONS | {
    "operations.py.j2": _SHARED
    + """
{% macro set_regs(vcpu, regs) %}write({{ vcpu }}.fd, REGS, {{ regs }}){% endmacro %}
{% macro set_modes(vcpu, modes) %}write({{ vcpu }}.fd, MODES, {{ modes }}){% endmacro %}
""",
    "state.py": """
SINKS = {
    "modes": {
        "operation": "set_modes",
        "shape": "keywords",
        "constructor": "modes_image",
        "type": "Modes",
        "variable": "modes",
        "composites": {"SegmentValue": ("segment", {"base": "base"})},
        "when": "vcpu.has_modes",
    },
    "regs": {
        "operation": "set_regs",
        "shape": "keywords",
        "constructor": "regs_image",
        "type": "Regs",
        "variable": "regs",
    },
}
SLOTS = {"general": ("regs", {"*": "*"}), "modes": ("modes", {"*": "*"})}
NOT_STATE = {}
CREATION_GUARANTEES = ()
ORDER = ()
""",
}

BATCH = _SECTIONS | {
    "operations.py.j2": _SHARED
    + """
{% macro set_regs(vcpu, regs) %}write({{ vcpu }}, {{ regs }}){% endmacro %}
""",
    "state.py": """
SINKS = {
    "all": {
        "operation": "set_regs",
        "shape": "table",
        "constructor": "table",
        "type": "Table",
        "variable": "values",
        "composites": {"SegmentValue": ("segment", {"base": "Base"})},
    },
}
SLOTS = {
    "general": ("all", {"pc": "PC", "sp": unsupported("it has no stack")}),
    "modes": ("all", {"code": "CODE", "paging": "PAGING"}),
}
NOT_STATE = {}
CREATION_GUARANTEES = ("modes",)
ORDER = ()
""",
}

TEMPLATE = """
{{ plan("boot", "general") }}
{{ inline("set_regs", "vcpu", "regs") }}
"""


def write_toy(templates: Path, **hypervisors: dict[str, str]) -> Path:
    """Write the toy's templates, with the hypervisors by their names, and return their folder."""
    files = {
        f"vmm_arch/protocols/{CPU}.py": CONTRACT,
        f"vmm_arch/{CPU}/vocabulary.py": VOCABULARY,
        f"cpu/{CPU}/states.py": STATES,
        f"cpu/{CPU}/functions.py.j2": TEMPLATE,
    }
    for name, folder in hypervisors.items():
        files |= {f"hypervisors/{name}/{CPU}/{file}": text for file, text in folder.items()}
    for path, text in files.items():
        file = templates / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return templates
