"""Forms of saved state that WHP has on x86_64: registers by name, and the rest of the XSAVE area."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

from vmm_arch.abi import whp_x86_64 as abi
from vmm_arch.abi.whp_x86_64 import WHV_REGISTER_VALUE
from vmm_arch.state_forms import Element, Leaf, leaves, read_leaf, write_leaf
from vmm_arch.whp.x86_64.registers import MSRS, SEGMENTS, WIDE, RegisterImage
from vmm_arch.x86_64.state_forms import XsaveForm, element_label, msr_element, present_msr_name

_FIELDS: Final = {name: kind for name, kind, *_ in WHV_REGISTER_VALUE._fields_}
_MSR_OF: Final = {number: index for index, number in MSRS.items() if number not in SEGMENTS}
_NARROW: Final = Leaf(("Reg64",), 64, False)
_WIDE: Final = Leaf((), 8 * ctypes.sizeof(WHV_REGISTER_VALUE), True)


class RegistersForm:
    """Registers, as many as the machine has.

    ``names`` gives the vocabulary's elements by register, or by a member of a register's value;
    ``own`` has the registers that the vocabulary does not have; those that
    are MSRs are called as on every hypervisor. The value of a register of which
    nothing more is known is one number.
    """

    def __init__(self, names: Mapping[str, str], own: Sequence[str]) -> None:
        self._names = names
        self._own = own

    @cached_property
    def _registers(self) -> dict[int, dict[str, Leaf]]:
        """The elements of each register, by its number."""
        heads = dict.fromkeys([*(slot.partition(".")[0] for slot in self._names), *self._own])
        return {getattr(abi, head): dict(self._of(head)) for head in heads}

    def _of(self, head: str) -> Iterator[tuple[str, Leaf]]:
        inside = [
            slot.removeprefix(f"{head}.") for slot in self._names if slot.startswith(f"{head}.")
        ]
        if not inside:
            number = getattr(abi, head)
            name = msr_element(_MSR_OF[number]) if number in _MSR_OF else head
            yield self._names.get(head, name), _WIDE if number in WIDE else _NARROW
            return
        variant = inside[0].partition(".")[0]
        for leaf in leaves(_FIELDS[variant], inside.__contains__, (variant,)):
            yield self._called(head, variant, leaf.name), leaf

    def _called(self, head: str, variant: str, path: str) -> str:
        if f"{head}.{path}" in self._names:
            return self._names[f"{head}.{path}"]
        rest = path.removeprefix(variant)
        return f"{self._names.get(f'{head}.{variant}', head)}{rest}"

    def label(self, name: str) -> str:
        return element_label(name)

    def present_name(self, name: str) -> str:
        """A register that had its own name, or an MSR's number, may have got another one."""
        return self._whole_registers.get(name) or present_msr_name(name)

    @cached_property
    def _whole_registers(self) -> dict[str, str]:
        """The registers that are one number, by their own names, each with its element's."""
        heads = {*(slot for slot in self._names if "." not in slot), *self._own}
        found = {head: list(dict(self._of(head))) for head in heads}
        return {head: names[0] for head, names in found.items() if len(names) == 1}

    @property
    def numbers(self) -> tuple[int, ...]:
        """All registers that are state, whether a machine has them or not."""
        return tuple(self._registers)

    @cached_property
    def _at(self) -> dict[str, tuple[int, Leaf]]:
        return {
            name: (number, leaf)
            for number, elements in self._registers.items()
            for name, leaf in elements.items()
        }

    def elements(self, saved: RegisterImage) -> dict[str, Element]:
        return {
            name: Element(read_leaf(saved[number], leaf), leaf.bits)
            for number in saved.names
            for name, leaf in self._registers[number].items()
        }

    def shape(self, saved: RegisterImage) -> object:
        return list(saved.names)

    def width(self, name: str) -> int | None:
        return self._at[name][1].bits if name in self._at else None

    def blank(self) -> RegisterImage:
        return RegisterImage({})

    def changed(self, saved: RegisterImage, changes: Mapping[str, Element]) -> RegisterImage:
        added = {self._at[name][0]: 0 for name in changes if self._at[name][0] not in saved}
        image = saved | RegisterImage(added) if added else RegisterImage.from_buffer_copy(saved)
        for name, element in changes.items():
            number, leaf = self._at[name]
            write_leaf(image[number], leaf, element.value)
        return image


class ExtendedForm(XsaveForm):
    """An XSAVE area without the legacy registers, which are registers by name."""

    def elements(self, saved: Any) -> dict[str, Element]:
        found = super().elements(saved)
        return {name: found[name] for name in ("xstate_bv", "xcomp_bv", "xsave.extended")}
