"""Values of MessagePack that know in which form they are written. Pure.

Borg writes raw bytes (``use_bin_type=False``), the shortest integer, and keys in order: that is
what :func:`node_of` makes. Every other form of the same value, and values that Borg never
writes, are made by changing the node.
"""

from __future__ import annotations

import bisect
import struct
from dataclasses import dataclass, field
from typing import Any, Union

RAW_FORMS = ("str8", "str16", "str32", "bin8", "bin16", "bin32")
INT_FORMS = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
_HEADS = {
    "str8": (b"\xd9", ">B"), "str16": (b"\xda", ">H"), "str32": (b"\xdb", ">I"),
    "bin8": (b"\xc4", ">B"), "bin16": (b"\xc5", ">H"), "bin32": (b"\xc6", ">I"),
    "uint8": (b"\xcc", ">B"), "uint16": (b"\xcd", ">H"), "uint32": (b"\xce", ">I"),
    "uint64": (b"\xcf", ">Q"), "int8": (b"\xd0", ">b"), "int16": (b"\xd1", ">h"),
    "int32": (b"\xd2", ">i"), "int64": (b"\xd3", ">q"),
    "array16": (b"\xdc", ">H"), "array32": (b"\xdd", ">I"),
    "map16": (b"\xde", ">H"), "map32": (b"\xdf", ">I"),
}  # fmt: skip
Node = Union["Raw", "Int", "Other", "Array", "Map"]


@dataclass
class Raw:
    """Bytes; ``form`` is empty for the one that Borg would choose."""

    data: bytes
    form: str = ""


@dataclass
class Int:
    """An integer."""

    value: int
    form: str = ""


@dataclass
class Other:
    """Anything else, as it goes on the wire."""

    packed: bytes


@dataclass
class Array:
    """A list. ``claims`` replaces its true length in the header."""

    parts: list[Node] = field(default_factory=list)
    form: str = ""
    claims: int | None = None


@dataclass
class Map:
    """A mapping; its keys may repeat and be anything."""

    pairs: list[tuple[Node, Node]] = field(default_factory=list)
    form: str = ""

    def at(self, key: bytes) -> int | None:
        """Return the place of a key, or None."""
        for place, (name, _) in enumerate(self.pairs):
            if isinstance(name, Raw) and name.data == key:
                return place
        return None

    def get(self, key: bytes) -> Any:
        """Return the value of a key, or None."""
        place = self.at(key)
        return None if place is None else self.pairs[place][1]

    def put(self, key: bytes, value: Node) -> None:
        """Set the value of a key; a new one comes where Borg would have it."""
        place = self.at(key)
        if place is None:
            names = [name.data if isinstance(name, Raw) else b"" for name, _ in self.pairs]
            self.pairs.insert(bisect.bisect(names, key), (Raw(key), value))
        else:
            self.pairs[place] = (self.pairs[place][0], value)

    def drop(self, key: bytes) -> None:
        """Remove a key."""
        place = self.at(key)
        if place is not None:
            del self.pairs[place]


NIL, TRUE, FALSE = Other(b"\xc0"), Other(b"\xc3"), Other(b"\xc2")
# What a value can be replaced with: of each type, and of types that Borg never writes.
STRANGE: tuple[Node, ...] = (
    NIL, TRUE, FALSE, Other(b"\xca\x3f\x80\x00\x00"), Other(b"\xcb\x7f\xf8" + bytes(6)),
    Other(b"\xd4\x05x"), Other(b"\xc7\x03\x07abc"), Other(b"\xd6\xff\x00\x00\x00\x01"),
    Int(0), Int(-1), Int(1 << 31), Int(1 << 32), Int((1 << 63) - 1), Int(-(1 << 63)),
    Int((1 << 64) - 1), Raw(b""), Raw(b"x"), Raw(b"\0"), Raw(b"\xff\xfe"), Raw(b"x" * 300),
    Raw(b"\xff" * 8), Raw(b"\xff" * 7), Raw(b"\x01" * 16), Array(), Array([Int(1)]), Map(),
    Map([(Raw(b"a"), Int(1))]), Other(b"\xc1"),
)  # fmt: skip


def node_of(value: Any) -> Node:
    """Return a node as Borg would write the value."""
    if value is None:
        return Other(b"\xc0")
    if isinstance(value, bool):
        return Other(b"\xc3" if value else b"\xc2")
    if isinstance(value, int):
        return Int(value)
    if isinstance(value, str):
        return Raw(value.encode("utf-8", "surrogateescape"))
    if isinstance(value, bytes):
        return Raw(value)
    if isinstance(value, dict):
        pairs = [(node_of(key), node_of(one)) for key, one in sorted(value.items())]
        return Map(pairs)
    return Array([node_of(one) for one in value])


def _head(form: str, number: int) -> bytes:
    mark, layout = _HEADS[form]
    try:
        return mark + struct.pack(layout, number)
    except struct.error:  # too much for this form: the largest that it can say
        return mark + b"\xff" * struct.calcsize(layout)


def _raw(node: Raw) -> bytes:
    size = len(node.data)
    if node.form:
        return _head(node.form, size) + node.data
    if size < 32:
        return bytes([0xA0 | size]) + node.data
    return _head("str16" if size < 1 << 16 else "str32", size) + node.data


def _int(node: Int) -> bytes:
    value = node.value
    if node.form:
        return _head(node.form, value)
    if -32 <= value < 128:
        return struct.pack("b", value)
    forms = ("uint8", "uint16", "uint32", "uint64") if value >= 0 else INT_FORMS[4:]
    for bits, form in zip((8, 16, 32, 64), forms, strict=True):
        if -(1 << (bits - 1)) <= value < 1 << (bits if value >= 0 else bits - 1):
            return _head(form, value)
    return _head("uint64", value)


def packed(node: Node) -> bytes:
    """Return what goes on the wire."""
    if isinstance(node, Raw):
        return _raw(node)
    if isinstance(node, Int):
        return _int(node)
    if isinstance(node, Other):
        return node.packed
    if isinstance(node, Array):
        count, parts = len(node.parts), [packed(one) for one in node.parts]
        shown, short, names = node.claims, 0x90, ("array16", "array32")
    else:
        count = len(node.pairs)
        parts = [packed(key) + packed(one) for key, one in node.pairs]
        shown, short, names = None, 0x80, ("map16", "map32")
    number = count if shown is None else shown
    if node.form:
        head = _head(node.form, number)
    elif number < 16:
        head = bytes([short | number])
    else:
        head = _head(names[number >= 1 << 16], number)
    return head + b"".join(parts)


def below(node: Node) -> list[Node]:
    """Return a node and all nodes in it, keys included."""
    found = [node]
    if isinstance(node, Array):
        for one in node.parts:
            found += below(one)
    elif isinstance(node, Map):
        for key, one in node.pairs:
            found += below(key) + below(one)
    return found
