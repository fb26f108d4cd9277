"""From the tables of state to Python: the classes of saved state, and how it is read and written.

Reads the contract, a hypervisor's sinks and their order; writes text. A macro has one call; which
calls are made, and in which order, is decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from textwrap import indent, wrap

from vmm_arch_gen.abi.model import VerifiedAbi
from vmm_arch_gen.abi.writer import digest_of
from vmm_arch_gen.arch.check_complete import own_names
from vmm_arch_gen.arch.contract import Contract
from vmm_arch_gen.arch.hypervisor import VCPUS, Hypervisor
from vmm_arch_gen.arch.sinks import Sink
from vmm_arch_gen.arch.vocabulary import Element

_SCOPES = {"vcpu": ("Vcpu", "VcpuState"), "machine": ("Vm", "VmState")}
_SAVES = {"vcpu": "save_vcpu", "machine": "save_vm"}
_OWNERS = {"vcpu": "vcpu", "machine": "vm"}


class WholeState:
    """Writes what saves and restores the state of one backend."""

    def __init__(
        self,
        contract: Contract,
        hypervisor: Hypervisor,
        abi: VerifiedAbi,
        inline: Callable[..., str],
    ) -> None:
        self._abi = abi
        self._contract = contract
        self._hypervisor = hypervisor
        self._target = abi.target
        self._inline = inline

    def promised(self) -> list[str]:
        """Whose state the contract wants to be saved: a vCPU's, a machine's, both, or neither."""
        return [scope for scope, name in _SAVES.items() if name in self._contract.operations]

    def scopes(self) -> list[str]:
        """Whose state can be saved on this hypervisor."""
        lacking = self._hypervisor.unsupported
        return [scope for scope in self.promised() if _SAVES[scope] not in lacking]

    def names(self) -> list[str]:
        """The classes of saved state."""
        classes = [_SCOPES[scope][1] for scope in self.promised()]
        return [*classes, *(["Snapshot"] if self._takes_snapshots() else [])]

    def _takes_snapshots(self) -> bool:
        return "take_snapshot" in self._contract.operations

    def body(self, macro: str) -> str:
        """The body of a planned operation."""
        match macro:
            case "save_vcpu":
                return "return _read_vcpu(self)"
            case "restore_vcpu":
                return (
                    "if not isinstance(state, VcpuState):\n"
                    '    raise TypeError(f"expected VcpuState, got {type(state).__name__}")\n'
                    "self._check_stopped()\nrestore(\n    state,\n    partial(_read_vcpu, self),\n    self._discard_pending,"
                    "\n    partial(_write_vcpu, self),\n)\nself._fresh = False"
                )
            case "save_vm":
                return "self._complete_all()\nreturn _read_vm(self)"
            case "take_snapshot":
                return (
                    "self._check_stopped()\nself._complete_all()\n"
                    "return Snapshot.of(self, devices or {}, base)"
                )
            case "reset_to":
                # Whether the clocks are reset as well is an argument that each CPU names its way.
                _, _, clocks, _ = self._contract.operations[macro].parameters
                return (
                    "if not isinstance(snapshot, Snapshot):\n"
                    '    raise TypeError(f"expected Snapshot, got {type(snapshot).__name__}")\n'
                    f"reset_machine(self, snapshot, {clocks}, frozenset(unchanged), _RESET_CALLS)"
                )
        # Whether the clocks catch up is an argument as well.
        _, _, catch_up = self._contract.operations[macro].parameters
        return (
            "if not isinstance(state, VmState):\n"
            '    raise TypeError(f"expected VmState, got {type(state).__name__}")\n'
            f"if {catch_up}:\n    check_time(state)\n"
            "self._check_stopped()\n"
            "restore(\n    state,\n    partial(_read_vm, self),\n    self._discard_all,"
            "\n    partial(_write_vm, self),"
            f"\n    partial(_caught_up, self, state) if {catch_up} else None,\n)\n"
            "for vcpu in self.vcpus:\n    vcpu._fresh = False"
        )

    def classes(self, snapshot_members: Callable[[], str]) -> str:
        """The classes of saved state, with the forms of all sinks.

        ``snapshot_members`` is the CPU's macro, which there is if the contract has snapshots.
        """
        facts = (
            f"_FACTS: Final = {_quoted(digest_of(self._abi))}\n"
            '"""The digest of the facts that the records of saved state are made of."""'
        )
        classes = [facts, *(self._class(scope) for scope in self.promised())]
        if self._takes_snapshots():
            requests = "".join(f"{_quoted(name)}, " for name in self._contract.requests)
            classes.append(
                "class Snapshot(MachineSnapshot):\n"
                '    """A machine at one moment; see :class:`MachineSnapshot`."""\n\n'
                "    __slots__ = ()\n"
                "    _vm = Vm\n"
                "    _guest_memory = GuestMemory\n"
                "    _machine_state = VmState\n"
                f"    _requests = ({requests})\n"
                "    _facts = _FACTS\n" + indent(snapshot_members().strip(), "    ")
            )
        return "\n\n".join(classes)

    def functions(self) -> str:
        """The functions that read and write all state, in the order that the rules ask for."""
        texts = [
            text for scope in self.scopes() for text in (self._read(scope), self._write(scope))
        ]
        if "machine" in self.scopes():
            texts.append(self._caught_up())
        if "reset_to" in self._contract.operations and "machine" in self.scopes():
            for scope in _SCOPES:
                texts += [self._prepare(scope), self._reset(scope)]
            texts.append(self._reset_calls())
        return "\n\n".join(texts)

    def _class(self, scope: str) -> str:
        _, name = _SCOPES[scope]
        base = "SavedState" if scope == "vcpu" else "SavedMachineState"
        what = "vCPU" if scope == "vcpu" else "machine"
        bits = "BITS" if self._contract.bits else "{}"
        saved = self._hypervisor.of(scope) if scope in self.scopes() else []
        sinks = "\n".join(f'        "{sink.name}": {self._sink(sink)},' for sink in saved)
        constant = f"_SINKS_OF_{scope.upper()}"
        lines = [
            f"{constant}: Final[Mapping[str, StateSink]] = {{\n{sinks}\n}}",
            "",
            "",
            f"class {name}({base}):",
            f'    """The whole state of a {what}; see :class:`{base}`."""',
            "",
            "    __slots__ = ()",
            f'    _what = "{what}"',
            f'    _backend = "{self._target}"',
            "    _facts = _FACTS",
            f"    _bits = {bits}",
            f"    _sinks = {constant}",
        ]
        if scope == "machine":
            lines.append("    _vcpu = VcpuState")
        return "\n".join(lines)

    def _sink(self, sink: Sink) -> str:
        arguments = [self._form(sink)]
        for keyword, names in (("running", sink.running), ("live", sink.live)):
            if names:
                arguments.append(f"{keyword}=({', '.join(map(_quoted, names))},)")
        if sink.restores is None:
            arguments.append("fixed=True")
        return f"StateSink({', '.join(arguments)})"

    def _form(self, sink: Sink) -> str:
        names = dict(self._names(sink))
        if sink.form is not None and sink.names is not None:
            given = ", ".join(f"{_quoted(slot)}: {_quoted(name)}" for slot, name in names.items())
            own = "".join(f"{_quoted(name)}, " for name in own_names(self._abi, sink))
            return f"{sink.form}({{{given}}}, ({own}))"
        if sink.form is not None:
            return sink.form
        inside = f", inside={_quoted(sink.inside)}" if sink.inside else ""
        given = ", ".join(f"{_quoted(slot)}: {_quoted(name)}" for slot, name in names.items())
        mapping = f", {{{given}}}" if given else ""
        return f"RecordForm({_quoted(sink.name)}, {sink.saved}{mapping}{inside})"

    def _names(self, sink: Sink) -> Iterator[tuple[str, str]]:
        """The elements of a sink, by their slots."""
        for element in self._contract.elements.values():
            slots = self._hypervisor.slots.get(element.group)
            if slots is not None and slots.sink == sink.name:
                slot = slots.slot(element.name)
                if isinstance(slot, str):
                    yield f"{slot}{_variant(sink, element)}", element.name
                    for part, member in _parts(sink, element):
                        yield f"{slot}.{member}", f"{element.name}.{part}"

    def _sinks(self, verb: str, scope: str) -> list[Sink | None]:
        """In the order of their steps; None for a machine's vCPUs."""
        steps = self._hypervisor.steps(verb, scope)
        return [None if name == VCPUS else self._hypervisor.sinks[name] for name in steps]

    def _read(self, scope: str) -> str:
        owner, state = _SCOPES[scope]
        name = _OWNERS[scope]
        what = "vCPU" if scope == "vcpu" else "machine and its vCPUs"
        lines = [
            f"def _read_{name}({name}: {owner}) -> {state}:",
            f'    """Read all state of a {what} as it is, without completing anything."""',
        ]
        read = self._sinks("read", scope)
        for sink in read:
            lines += self._reasons("read", sink.name if sink else VCPUS)
            if sink is None:
                lines.append("    vcpus = [_read_vcpu(vcpu) for vcpu in vm.vcpus]")
                continue
            assert sink.reads is not None
            text = self._inline(sink.reads, name, sink.variable)
            if sink.when is not None:
                lines.append(f"    {sink.variable}: Any = None\n    if {sink.when}:")
                text = indent(text, "    ")
            lines.append(indent(text, "    "))
        table = [sink for sink in self._hypervisor.of(scope) if sink in read]
        saved = ", ".join(f"{_quoted(sink.name)}: {sink.variable}" for sink in table)
        more = "" if scope == "vcpu" else ", vcpus, time.time_ns()"
        return "\n".join([*lines, f"    return {state}({{{saved}}}{more})"])

    def _write(self, scope: str) -> str:
        owner, state = _SCOPES[scope]
        name = _OWNERS[scope]
        lines = [
            f"def _write_{name}({name}: {owner}, state: {state}, refusals: Refusals) -> None:",
            '    """Write a saved state; what the hypervisor refuses is noted, and the rest written."""',
            "    saved = state._saved",
        ]
        for sink in self._sinks("write", scope):
            lines += self._reasons("write", sink.name if sink else VCPUS)
            if sink is None:
                lines.append(
                    "    for vcpu, of_vcpu in zip(vm.vcpus, state.vcpus, strict=True):\n"
                    "        _write_vcpu(vcpu, of_vcpu, refusals)"
                )
                continue
            assert sink.restores is not None
            text = self._inline(sink.restores, name, sink.variable)
            lines.append(f"    {sink.variable} = saved[{_quoted(sink.name)}]")
            within = "with refusals:"
            if sink.when is not None:
                lines.append(f"    if {sink.variable} is not None:")
                within, text = f"    {within}", indent(text, "    ")
            lines += [f"    {within}", indent(text, "        ")]
        return "\n".join(lines)

    def _caught_up(self) -> str:
        of_machine, of_vcpus = (
            "".join(
                f"{_quoted(sink.name)}: {{"
                + "".join(f"{_quoted(name)}: {rate}, " for name, rate in sink.ticks.items())
                + "}, "
                for sink in self._hypervisor.of(scope)
                if sink.ticks
            )
            for scope in ("machine", "vcpu")
        )
        return (
            "def _caught_up(vm: Vm, state: VmState) -> VmState:\n"
            '    """The state with clocks that have advanced by the time since it was saved."""\n'
            f"    return caught_up(state, {{{of_machine}}}, {{{of_vcpus}}})"
        )

    def _prepare(self, scope: str) -> str:
        owner, state = _SCOPES[scope]
        name = _OWNERS[scope]
        lines = [
            f"def _prepare_{name}({name}: {owner}, state: {state}, left_out: frozenset[str])"
            " -> dict[str, Any]:",
            '    """Lay out what resets to a state write; None for what they do not."""',
        ]
        prepared = "{n: None if n in left_out else s for n, s in state._saved.items()}"
        if not any(sink.prepares for sink in self._hypervisor.of(scope)):
            return "\n".join([*lines, f"    return {prepared}"])
        lines.append(f"    prepared = {prepared}")
        for sink in self._hypervisor.of(scope):
            if sink.prepares is not None:
                key, variable = _quoted(sink.name), sink.variable
                lines += [
                    f"    {variable} = prepared[{key}]",
                    f"    if {variable} is not None:",
                    f"        prepared[{key}] = {sink.prepares}",
                ]
        return "\n".join([*lines, "    return prepared"])

    def _reset(self, scope: str) -> str:
        owner, _ = _SCOPES[scope]
        name = _OWNERS[scope]
        more = "" if scope == "vcpu" else ", vcpus: Sequence[Mapping[str, Any]]"
        lines = [
            f"def _reset_{name}({name}: {owner}, prepared: Mapping[str, Any]{more}) -> None:",
            '    """Write what the guest may have changed since."""',
        ]
        for sink in self._sinks("write", scope):
            if sink is None:
                lines.append(
                    "    for vcpu, of_vcpu in zip(vm.vcpus, vcpus, strict=True):\n"
                    "        _reset_vcpu(vcpu, of_vcpu)"
                )
            elif sink.resets is None:
                because = f"Not {sink.name}: {sink.needs_no_reset}."
                lines += (f"    # {line}" for line in wrap(because, 92))
            else:
                lines += self._reasons("write", sink.name)
                text = self._inline(sink.resets, name, sink.variable)
                lines.append(f"    {sink.variable} = prepared[{_quoted(sink.name)}]")
                lines.append(f"    if {sink.variable} is not None:")
                lines.append(indent(text, "        "))
        return "\n".join(lines)

    def _reset_calls(self) -> str:
        sinks = [s for s in self._hypervisor.sinks.values() if s.resets]
        groups: dict[str, list[str]] = {}
        for group, slots in self._hypervisor.slots.items():
            groups.setdefault(slots.sink, []).append(group)
        held = "".join(
            f"{_quoted(sink.name)}: ({', '.join(map(_quoted, groups[sink.name]))},), "
            for sink in sinks
            if sink.name in groups
        )
        clocks = "".join(f"{_quoted(sink.name)}, " for sink in sinks if sink.is_clock)
        return (
            "_RESET_CALLS: Final = ResetCalls(\n"
            "    read=_read_vm,\n    prepare_vcpu=_prepare_vcpu,\n    prepare_vm=_prepare_vm,\n"
            f"    reset=_reset_vm,\n    groups={{{held}}},\n    clocks=frozenset(({clocks})),\n)"
        )

    def _reasons(self, verb: str, name: str) -> Iterator[str]:
        """Why a step comes after others, as comments."""
        for rule in self._hypervisor.rules:
            if rule.verb == verb and rule.second == name:
                yield from (
                    f"    # {line}" for line in wrap(f"After {rule.first}: {rule.because}.", 92)
                )


def _parts(sink: Sink, element: Element) -> Iterator[tuple[str, str]]:
    """The parts of an element that are members with other names, each with its member."""
    if element.composite is not None:
        for part, member in sink.composites[element.composite.name].members.items():
            if part != member:
                yield part, member


def _variant(sink: Sink, element: Element) -> str:
    """The member of a table's value that an element of several parts is."""
    if sink.value is None or element.composite is None:
        return ""
    members = sink.composites[element.composite.name].members.values()
    return f".{next(iter(members)).partition('.')[0]}"


def _quoted(text: str) -> str:
    return f'"{text}"'
