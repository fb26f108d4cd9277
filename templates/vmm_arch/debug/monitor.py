"""What the user of gdb can ask of the VMM: ``monitor COMMAND``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from vmm_arch.debug.cpu import Cpu

HELP: Final = """\
dump               the current vCPU: registers, code, stack, page tables
translate ADDRESS  the way from a guest-virtual to a guest-physical address
physical on|off    whether memory is read and written by guest-physical addresses
reset              reset the machine: vmm-arch run --on-reset says what happens then
help               this text
"""


class Monitor:
    """The commands, in words."""

    def __init__(self, vm: Any, cpu: Cpu, reset: Callable[[], object]) -> None:
        self._vm = vm
        self._cpu = cpu
        self._reset = reset
        self.physical = False
        """Whether addresses are guest-physical ones."""

    def answer(self, line: str, index: int) -> str:
        """Do what a line says; ``index`` is the current vCPU's."""
        match line.split():
            case ["dump"]:
                return self._cpu.dump(self._vm.vcpus[index], self._vm.memory) + "\n"
            case ["translate", text]:
                return self._translate(text, index)
            case ["physical"]:
                return f"memory is accessed by guest-{'physical' if self.physical else 'virtual'} addresses\n"
            case ["physical", "on" | "off" as wanted]:
                self.physical = wanted == "on"
                return ""
            case ["reset"]:
                self._reset()
                return "the guest is reset when it continues\n"
            case ["help"] | []:
                return HELP
            case _:
                return f"{line}: there is no such command\n{HELP}"

    def _translate(self, text: str, index: int) -> str:
        try:
            address = int(text, 0)
        except ValueError:
            return f"{text} is not an address such as 0x1000\n"
        found = self._cpu.address_space(self._vm.vcpus[index]).walk(address)
        return "".join(f"{step}\n" for step in found.steps) + f"{found}\n"
