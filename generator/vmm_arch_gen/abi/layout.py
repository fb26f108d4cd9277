"""Where a C compiler puts the members of a record, for every data model."""

from __future__ import annotations

from collections.abc import Mapping

from vmm_arch_gen.abi.model import Abi, DataModel, Enum, Layout, Member, Record, Typedef
from vmm_arch_gen.abi.types import Array, Function, Named, Pointer, Scalar, Type


class LayoutError(ValueError):
    """A type has no layout: it is incomplete, unknown or contains itself."""


class UndefinedType(LayoutError):
    """A type is named, and perhaps declared, but not defined."""

    def __init__(self, name: str, message: str = "") -> None:
        super().__init__(message or f"{name} is not defined")
        self.name = name.rpartition(" ")[2]


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
            "long double": (model.long_double, min(model.long_double, model.int128_align)),
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
        """Resolve typedefs and enums; a record stays its name."""
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
                raise UndefinedType(name)

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
        placer = self._placer(record)
        offsets = []
        for member in record.members:
            size, align = self.of(member.type)
            if placer.by_size:
                align = max(align, self._of_element(member.type))
            if member.bits is None:
                offsets.append(placer.bytes(member, size, align))
            elif member.bits > size * 8:
                raise LayoutError(f"{record.key}: {member.name} is wider than its type")
            else:
                offsets.append(placer.bits(member, size, align))
        align = max(placer.align, record.aligned or 1)
        return Layout(_up(-(-placer.size // 8), align), align, tuple(offsets))

    def _of_element(self, type: Type) -> int:
        """The bytes of the C type that a type, or the elements of an array, is called after."""
        while isinstance(type, Array) or (isinstance(type, Named) and type.name in self.typedefs):
            type = type.of if isinstance(type, Array) else self.typedefs[type.name].type
        return self.of(type)[0] if isinstance(type, Scalar) else 1


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


class _SysVPlacer:
    """The rules of the System V ABIs: a bit-field goes where it fits, wherever the last one ended."""

    by_size = False
    """Whether C's own types are aligned to their size even where a typedef says less."""
    unnamed_aligns = False
    """Whether an unnamed bit-field aligns the record that it is in."""

    def __init__(self, record: Record) -> None:
        self.size = 0  # in bits
        self.end = 0
        """Where the next member may begin: before what is taken, if a bit-field ended a unit."""
        self.align = 1
        self._record = record

    def bytes(self, member: Member, size: int, align: int) -> int:
        """Place a member that is no bit-field; its offset in bits."""
        if self._packed(member):
            align = 1
        align = self._limited(max(align, member.aligned or 1))
        start = 0 if self._union else _up(self.end, align * 8)
        self._placed(start + size * 8, align)
        return start

    def bits(self, member: Member, size: int, align: int) -> int:
        """Place a bit-field; its offset in bits."""
        width, aligned, limit = member.bits or 0, member.aligned or 0, self._record.pack
        unit = size * 8
        # Of a bit-field an alignment is a number of bits: packed ones may begin at any.
        wanted = 1 if self._packed(member) and width else align * 8
        wanted = max(wanted, aligned * 8)
        if limit and width:
            unpacked = min(max(align, aligned), limit) * 8
            wanted = unpacked if self._packed(member) else min(wanted, limit * 8)
        start = 0 if self._union else self.end
        # In a packed record nothing is left free before a bit-field.
        if width == 0 or (not limit and start % wanted + width > unit):
            start = _up(start, wanted)
        elif aligned and not (limit and aligned > limit):
            start = _up(start, aligned * 8)
        self._placed(start + width, wanted // 8 if member.name or self.unnamed_aligns else 1)
        return start

    @property
    def _union(self) -> bool:
        return self._record.kind == "union"

    def _packed(self, member: Member) -> bool:
        return self._record.packed or member.packed

    def _limited(self, align: int) -> int:
        """An alignment, limited to what ``#pragma pack`` says."""
        return min(align, self._record.pack or align)

    def _placed(self, end: int, align: int) -> None:
        self.end = end
        self.size = max(self.size, end)
        self.align = max(self.align, align)


class _AapcsPlacer(_SysVPlacer):
    """Arm's rules."""

    unnamed_aligns = True


class _MsPlacer(_SysVPlacer):
    """Microsoft's rules: bit-fields share a unit only with neighbours whose type has the same size."""

    by_size = True

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._unit = self._free = 0  # of the open storage unit, in bits

    def bytes(self, member: Member, size: int, align: int) -> int:
        self._unit = self._free = 0
        return super().bytes(member, size, align)

    def bits(self, member: Member, size: int, align: int) -> int:
        width, unit = member.bits or 0, size * 8
        if self._union:  # where a bit-field takes all of its type's bytes, but aligns nothing
            self._placed(unit if width else 8, 1)
            return 0
        wanted = size
        if self._unit != unit or self._free < width:
            if not self._unit and not width:
                wanted = 1  # it only ends a unit, and none is open
            self._unit = self._free = 0
        wanted = max(wanted, member.aligned or 1)
        if width:
            wanted = self._limited(wanted)
        start = self.end - self._free
        if width == 0 or not self._free:
            start = _up(start, wanted * 8)
            self._unit, self._free = (unit, unit) if width else (0, 0)
        self._free -= width
        self._placed(start + width + self._free, wanted)
        return start
