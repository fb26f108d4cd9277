"""Where a C compiler puts the members of a record, for every data model."""

from __future__ import annotations

from collections.abc import Mapping

from vmm_arch_gen.abi.model import Abi, DataModel, Enum, Layout, Member, Record, Typedef
from vmm_arch_gen.abi.types import Array, Function, Named, Pointer, Scalar, Type


class LayoutError(ValueError):
    """A type has no layout: it is incomplete, unknown or contains itself."""


class UndefinedType(LayoutError):
    """A type is named, and perhaps declared, but not defined."""


class Layouts:
    """Sizes and alignments, in bytes, of the types that a set of declarations defines.

    The mappings may grow while it is used, as they do while a header is read.
    """

    def __init__(
        self,
        model: DataModel,
        records: Mapping[str, Record],
        typedefs: Mapping[str, Typedef],
        enums: Mapping[str, Enum],
    ) -> None:
        self.records, self.typedefs, self._enums = records, typedefs, enums
        self._layouts: dict[str, Layout] = {}
        self._open: set[str] = set()
        self._placer = {"sysv": _SysVPlacer, "aapcs": _AapcsPlacer, "ms": _MsPlacer}[
            model.bit_fields
        ]
        word = (model.long, model.long)
        self._scalars = {
            "_Bool": (1, 1),
            "char": (1, 1),
            "signed char": (1, 1),
            "unsigned char": (1, 1),
            "short": (2, 2),
            "unsigned short": (2, 2),
            "int": (4, 4),
            "unsigned int": (4, 4),
            "long": word,
            "unsigned long": word,
            "long long": (8, 8),
            "unsigned long long": (8, 8),
            "__int128": (16, model.int128_align),
            "unsigned __int128": (16, model.int128_align),
            "float": (4, 4),
            "double": (8, 8),
        }
        self._pointer = (model.pointer, model.pointer)
        self._unsigned = {"_Bool"} if model.signed_char else {"_Bool", "char"}

    @classmethod
    def of_abi(cls, abi: Abi) -> Layouts:
        """The layouts that an Abi states; they are not computed again."""
        layouts = cls(abi.model, abi.records, abi.typedefs, abi.enums)
        layouts._layouts.update(abi.layouts)
        return layouts

    def resolve(self, type: Type) -> Type:
        """Follow typedefs and enums to the type behind them; a record stays its name."""
        while isinstance(type, Named):
            if type.name in self._enums:
                return self._enums[type.name].underlying
            if type.name not in self.typedefs:
                break
            type = self.typedefs[type.name].type
        return type

    def signed(self, scalar: Scalar) -> bool:
        """Whether an integer type of C is signed in this data model."""
        return not scalar.name.startswith("unsigned") and scalar.name not in self._unsigned

    def of(self, type: Type) -> tuple[int, int]:
        """The size and alignment of a type, in bytes."""
        match type:
            case Scalar(name):
                if name not in self._scalars:
                    raise LayoutError(f"{name} has no size")
                return self._scalars[name]
            case Pointer():
                return self._pointer
            case Array(of, count):
                size, align = self.of(of)
                return size * (count or 0), align
            case Function():
                raise LayoutError("a function has no size")
            case Named(name):
                if name in self.records:
                    layout = self.record(name)
                    return layout.size, layout.align
                if name in self._enums:
                    return self.of(self._enums[name].underlying)
                if name in self.typedefs:
                    typedef = self.typedefs[name]
                    if name in self._open:
                        raise LayoutError(f"{name} is defined by itself")
                    self._open.add(name)
                    try:
                        size, align = self.of(typedef.type)
                    finally:
                        self._open.discard(name)
                    return size, typedef.aligned or align
                raise UndefinedType(f"{name} is not defined")

    def record(self, key: str) -> Layout:
        """The layout of a record."""
        if key not in self._layouts:
            if key in self._open:
                raise LayoutError(f"{key} contains itself")
            self._open.add(key)
            try:
                self._layouts[key] = self._place(self.records[key])
            finally:
                self._open.discard(key)
        return self._layouts[key]

    def _place(self, record: Record) -> Layout:
        union = record.kind == "union"
        placer = self._placer(union)
        offsets, longest = [], 0
        for member in record.members:
            size, align = self.of(member.type)
            bits_keep = member.bits is not None and placer.packs_no_bits
            if record.packed and member.bits != 0 and not bits_keep:
                align = 1
            align = max(align, member.aligned or 1)
            if union:
                placer.end = 0
            if member.bits is None:
                offsets.append(placer.bytes(size, align))
            else:
                if member.bits > size * 8:
                    raise LayoutError(f"{record.key}: {member.name} is wider than its type")
                offsets.append(placer.bits(member, size, align, record.packed))
            longest = max(longest, placer.end)
        align = max(placer.align, record.aligned or 1)
        return Layout(_up(-(-longest // 8), align), align, tuple(offsets))


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


class _SysVPlacer:
    """The rules of the System V ABIs: a bit-field goes where it fits, wherever the last one ended."""

    unnamed_aligns = False
    """Whether an unnamed bit-field aligns the record that it is in."""
    packs_no_bits = False
    """Whether the bit-fields of a packed record keep their alignment."""

    def __init__(self, union: bool) -> None:
        self.end = 0  # in bits
        self.align = 1
        self.union = union

    def bytes(self, size: int, align: int) -> int:
        start = _up(self.end, align * 8)
        self.align = max(self.align, align)
        self.end = start + size * 8
        return start

    def bits(self, member: Member, size: int, align: int, packed: bool) -> int:
        width = member.bits or 0
        unit = size * 8
        start = self.end
        if member.aligned is not None:
            start = _up(start, member.aligned * 8)
        if width == 0:
            start = _up(start, unit)
        elif not packed and start // unit != (start + width - 1) // unit:
            start = _up(start, align * 8)
        if member.name or self.unnamed_aligns:
            self.align = max(self.align, align)
        self.end = start + width
        return start


class _AapcsPlacer(_SysVPlacer):
    """Arm's rules."""

    unnamed_aligns = True


class _MsPlacer(_SysVPlacer):
    """Microsoft's rules: bit-fields share a unit only with neighbours whose type has the same size."""

    packs_no_bits = True

    def __init__(self, union: bool) -> None:
        super().__init__(union)
        self._unit = self._free = 0  # of the open storage unit, in bits

    def bytes(self, size: int, align: int) -> int:
        self._unit = self._free = 0
        return super().bytes(size, align)

    def bits(self, member: Member, size: int, align: int, packed: bool) -> int:
        width = member.bits or 0
        if self.union:  # where a bit-field takes all of its type's bytes, but aligns nothing
            self.end = size * 8
            return 0
        if width == 0 and not self._unit:
            return self.end  # it only ends a unit, and none is open
        if self._unit != size * 8 or self._free < width or width == 0:
            start = super().bytes(0, align)
            self._unit, self._free = (size * 8, size * 8) if width else (0, 0)
            self.end = start + self._unit
        start = self.end - self._free
        self._free -= width
        return start
