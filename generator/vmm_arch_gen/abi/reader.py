"""The text of an .abi file to a target's facts, which were proven when it was written."""

from __future__ import annotations

import re
from pathlib import Path

from vmm_arch_gen.abi import lines
from vmm_arch_gen.abi.expression_text import parse as parse_expression
from vmm_arch_gen.abi.integers import IntType
from vmm_arch_gen.abi.layout import LayoutError, Layouts
from vmm_arch_gen.abi.model import (
    Abi,
    Constant,
    DataModel,
    Enum,
    FunctionPrototype,
    Ioctl,
    IoctlRules,
    Layout,
    MacroFunction,
    Member,
    Omission,
    Record,
    String,
    Typedef,
    VerifiedAbi,
)
from vmm_arch_gen.abi.text import FORMAT, MAGIC, digest
from vmm_arch_gen.abi.writer import write_abi
from vmm_arch_gen.diagnostics import InputError, Problem


def read_abi_file(path: Path, *, exact: bool = True) -> VerifiedAbi:
    """Read one target's facts, as :func:`read_abi` does; InputError says what is wrong with them."""
    regenerate = f"run: vmm-arch-gen extract --only {path.stem}"
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        raise InputError(Problem(str(path), "no such file", regenerate)) from None
    except OSError as error:
        raise InputError(
            Problem(str(path), f"cannot be read: {error.strerror}", "make it readable")
        ) from None
    except UnicodeDecodeError:
        raise InputError(Problem(str(path), "is not UTF-8 text", regenerate)) from None
    return read_abi(text, str(path), path.stem, exact=exact)


def read_abi(text: str, where: str, target: str, *, exact: bool = True) -> VerifiedAbi:
    """Read what :func:`write_abi` wrote, check its digest and lay out its records again.

    ``where`` is how errors name the text. With ``exact`` it must be in the very form that
    :func:`write_abi` gives it. What only tells of the facts can do without that, which takes long.
    """
    remedy = f"regenerate it, also after a merge conflict: vmm-arch-gen extract --only {target}"

    def refuse(what: str, line: int | None = None) -> InputError:
        place = where if line is None else f"{where}:{line}"
        return InputError(Problem(place, what, remedy))

    first = text.partition("\n")[0]
    match = re.fullmatch(rf"{MAGIC} (\d+)", first)
    if match is None:
        raise refuse(f"does not begin with '{MAGIC} {FORMAT}'", 1)
    if int(match[1]) > FORMAT:
        raise InputError(
            Problem(
                f"{where}:1",
                f"has format {match[1]}, newer than the {FORMAT} that this generator knows",
                "upgrade vmm-arch",
            )
        )
    if int(match[1]) < FORMAT:
        raise refuse(f"has the outdated format {match[1]}; this generator writes {FORMAT}", 1)
    body, end, stated = text.rpartition("end sha256 ")
    if not end or not re.fullmatch(r"[0-9a-f]{64}\n", stated):
        raise refuse("is cut short: its last line is not a digest")
    if stated.strip() != digest(body):
        raise refuse("has been changed since it was written: its digest does not match")

    reader = _Reader()
    for number, line in enumerate(body.splitlines()[1:], start=2):
        try:
            reader.read(line)
        except ValueError as error:
            raise refuse(f"{line!r} is not a fact: {error}", number) from None
    try:
        abi = reader.abi()
    except (LayoutError, ValueError) as error:
        raise refuse(f"contradicts itself: {error}") from None
    if abi.target != target:
        raise refuse(f"holds the facts of target {abi.target!r}, not of {target!r}", 2)
    if exact and write_abi(abi) != text:
        raise refuse("is not in the form that this generator writes")
    return abi


class _Reader:
    """Collects facts line by line."""

    def __init__(self) -> None:
        self._target: str | None = None
        self._model: DataModel | None = None
        self._origin: lines.Origin | None = None
        self._ioctl_rules: IoctlRules | None = None
        self._headers: list[str] = []
        self._constants: list[Constant] = []
        self._strings: list[String] = []
        self._enums: dict[str, tuple[lines.EnumHead, list[tuple[str, int]]]] = {}
        self._functions: list[FunctionPrototype] = []
        self._ioctls: list[Ioctl] = []
        self._macros: list[MacroFunction] = []
        self._records: dict[str, tuple[lines.RecordHead, str, list[Member]]] = {}
        """Each with its header."""
        self._stated: dict[str, list[int | None]] = {}
        """Offsets; None for members after the first one on a line."""
        self._typedefs: dict[str, Typedef] = {}
        self._omissions: list[Omission] = []
        self._open: list[str] = []
        """The enum or record that lines are indented below, and those inside it."""

    def read(self, line: str) -> None:
        text = line.lstrip(" ")
        depth, odd = divmod(len(line) - len(text), 2)
        if odd or depth > len(self._open):
            raise ValueError("it is indented below nothing")
        del self._open[depth:]
        for fact in lines.parse(text, depth > 0):
            self._store(fact)

    def _store(self, fact: lines.Fact) -> None:
        match fact:
            case Constant():
                self._constants.append(fact)
            case lines.Members():
                self._members(fact)
            case lines.Enumerator(name, value):
                key = self._open[0]
                if len(self._open) > 1 or key not in self._enums:
                    raise ValueError(f"{key} is not an enum")
                self._enums[key][1].append((name, value))
            case lines.RecordHead():
                self._begin(fact, fact.header)
            case lines.EnumHead(key):
                self._enums[key] = (fact, [])
                self._open = [key]
            case lines.Omissions(omissions):
                self._omissions += omissions
            case Ioctl():
                self._ioctls.append(fact)
            case Typedef(name):
                self._typedefs[name] = fact
            case lines.Macro():
                self._macro(fact)
            case String():
                self._strings.append(fact)
            case FunctionPrototype():
                self._functions.append(fact)
            case lines.Header(name):
                self._headers.append(name)
            case lines.Origin():
                self._origin = fact
            case DataModel():
                self._model = fact
            case lines.Target(name):
                self._target = name
            case lines.Rules(rules):
                self._ioctl_rules = rules

    def _macro(self, line: lines.Macro) -> None:
        if self._model is None:
            raise ValueError("the model line has to stand above it")
        size_type = IntType(self._model.pointer, signed=False)
        value = parse_expression(line.value, line.parameters, size_type)
        if value.type.name != line.type:
            raise ValueError(f"its value is of type {value.type.name}")
        self._macros.append(MacroFunction(line.name, line.parameters, value, line.header))

    def _begin(self, head: lines.RecordHead, header: str) -> None:
        self._records[head.key] = (head, header, [])
        self._stated[head.key] = []
        self._open.append(head.key)

    def _members(self, line: lines.Members) -> None:
        key = self._open[-1]
        if key not in self._records:
            raise ValueError(f"{key} is not a record")
        _, header, members = self._records[key]
        members += line.members
        self._stated[key].extend([line.offset, *[None] * (len(line.members) - 1)])
        if line.defines:
            self._begin(line.defines, header)

    def abi(self) -> VerifiedAbi:
        if (
            self._target is None
            or self._model is None
            or self._origin is None
            or self._ioctl_rules is None
        ):
            stated = {
                "target": self._target,
                "model": self._model,
                "origin": self._origin,
                "ioctl_rules": self._ioctl_rules,
            }
            missing = sorted(name for name, value in stated.items() if value is None)
            raise ValueError(f"no {', '.join(missing)} line")
        records = {
            key: Record(
                key, head.kind, tuple(members), head.packed, head.aligned, header, head.pack
            )
            for key, (head, header, members) in self._records.items()
        }
        enums = {
            key: Enum(key, head.underlying, tuple(values), head.header)
            for key, (head, values) in self._enums.items()
        }
        layouts = Layouts(self._model, records, self._typedefs, enums)
        for key, (head, _, _) in self._records.items():
            found = layouts.record(key)
            places = zip(self._stated[key], found.offsets, strict=True)
            offsets = tuple(f if s is None else s for s, f in places)
            stated_layout = Layout(head.size, head.align, offsets)
            if stated_layout != found:
                what = f"{key} is stated as {stated_layout} but its members give {found}"
                raise ValueError(what)
        return VerifiedAbi(
            Abi(
                self._target,
                self._model,
                self._origin.text,
                self._origin.digest,
                tuple(self._headers),
                tuple(self._constants),
                enums,
                tuple(self._functions),
                tuple(self._ioctls),
                records,
                self._typedefs,
                tuple(self._omissions),
                {key: layouts.record(key) for key in records},
                tuple(self._strings),
                self._ioctl_rules,
                tuple(self._macros),
            )
        )
