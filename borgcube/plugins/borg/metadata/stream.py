"""Cut a stream of items into objects, in bounded memory. Pure.

An archive's items are one stream of msgpack objects, cut into chunks anywhere (Borg 1.4,
"Internals, Data structures, Archives").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgpack

from borgcube.plugins.borg.metadata.rules import ArchiveRefused

# One item may take this many bytes; a file of 3 TB in usual chunks does.
MAX_ITEM = 64 << 20
# An item up to here is unpacked as it is: an empty map takes one byte there and 64 in
# memory. A larger one must be a long list of chunks, whose form is checked before.
LARGE_ITEM = 1 << 20
PIECE = 256 << 10
MAX_WIDTH = 10_000  # of a map

_INTEGER = rb"(?:[\x00-\x7f]|\xcc.|\xcd..|\xce.{4}|\xcf.{8})"
_CHUNKS = re.compile(
    rb"(?:\xc0|[\x90-\x9f]|\xdc..|\xdd.{4})"
    rb"(?:\x93(?:\xc4\x20|\xda\x00\x20).{32}" + _INTEGER + _INTEGER + rb")*+",
    re.DOTALL,
)


def _unpacker(*, longest: int = MAX_ITEM, widest: int = MAX_ITEM) -> Any:
    return msgpack.Unpacker(
        raw=True,
        use_list=False,
        strict_map_key=False,
        max_buffer_size=MAX_ITEM + PIECE,
        max_array_len=longest,  # room is made for an array before its elements are there
        max_map_len=widest,
    )


def unpack_strictly(plain: bytes) -> Any:
    """Return the one object in ``plain``; raises ArchiveRefused for anything else."""
    try:
        return msgpack.unpackb(plain, raw=True, use_list=False, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise ArchiveRefused(f"its metadata does not parse: {type(error).__name__}") from None


def read_items(chunks: Iterable[bytes]) -> Iterator[dict[bytes, Any]]:
    """Yield the items of a stream given as the plaintexts of its chunks.

    Takes a bounded multiple of LARGE_ITEM in memory, and of an item of up to MAX_ITEM bytes
    that is a list of chunks. Raises ArchiveRefused when it does not parse, ends inside an
    item, or an item is larger than that.
    """
    reader = ItemReader()
    for chunk in chunks:
        for item, _ in reader.read(chunk):
            yield item
    reader.finish()


class ItemReader:
    """Cuts a stream into items. ``rest`` are the bytes of the item that is not complete.

    Most items are unpacked as they come. One that is large, or has a long list, is first
    only measured, then looked at, and unpacked last.
    """

    def __init__(self) -> None:
        self.rest = bytearray()
        self._stale = False
        self._start_over()

    @property
    def is_plain(self) -> bool:
        """Whether what comes next depends on nothing but ``rest``."""
        return self._measure is None

    def read(self, chunk: bytes) -> Iterator[tuple[Any, bytes | bytearray]]:
        """Yield the items that a chunk completes, each with its bytes. Raises ArchiveRefused."""
        try:
            for start in range(0, len(chunk), PIECE):
                yield from self.feed(chunk[start : start + PIECE])
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise ArchiveRefused(
                f"the item stream does not parse: {type(error).__name__}"
            ) from None

    def skip_to(self, rest: bytes) -> None:
        """Go on as if some chunks had been read after which ``rest`` is left."""
        self.rest = bytearray(rest)
        self._stale = True

    def finish(self) -> None:
        """Raise ArchiveRefused if the stream ended inside an item."""
        if self.rest:
            raise ArchiveRefused("the item stream ends inside an item")

    def _start_over(self) -> None:
        self._unpacker = _unpacker(longest=LARGE_ITEM // 32, widest=MAX_WIDTH)
        self._given = 0  # bytes of complete items since this unpacker was made
        self._measure: Any = None

    def feed(self, piece: bytes) -> Iterator[tuple[Any, bytes | bytearray]]:
        """Yield the items that ``piece`` completes, each with its bytes."""
        if self._stale:
            self._stale = False
            self._start_over()
            self._unpacker.feed(bytes(self.rest))
        self.rest += piece
        if self._measure is not None:
            self._measure.feed(piece)
            yield from self._large()
            return
        given = self._given
        try:
            self._unpacker.feed(piece)
            for item in self._unpacker:
                begin, self._given = self._given - given, self._unpacker.tell()
                yield item, self.rest[begin : self._given - given]
            done = True
        except ValueError:  # perhaps only longer than most; if not, measuring fails as well
            done = False
        del self.rest[: self._given - given]
        if not done or len(self.rest) > LARGE_ITEM:
            self._measure = _unpacker()
            self._measure.feed(bytes(self.rest))
            yield from self._large()

    def _large(self) -> Iterator[tuple[Any, bytes | bytearray]]:
        """Yield the large item when it is complete, and what follows it."""
        if len(self.rest) > MAX_ITEM:
            raise ArchiveRefused("an item is larger than an item may be")
        try:
            self._measure.skip()
        except msgpack.OutOfData:
            return
        length = self._measure.tell()
        item, following = bytes(self.rest[:length]), bytes(self.rest[length:])
        self.rest.clear()
        self._start_over()
        _check_large(item)
        yield unpack_strictly(item), item
        yield from self.feed(following)


def _check_large(item: bytes) -> None:
    """Refuse a large item that is more than a few values and lists of chunks."""
    keys = _unpacker()
    keys.feed(item)
    others = 0
    for _ in range(keys.read_map_header()):
        at = keys.tell()
        keys.skip()
        value_at = keys.tell()
        keys.skip()
        end = keys.tell()
        if item[at:value_at].endswith((b"chunks", b"chunks_healthy")):
            found = _CHUNKS.match(item, value_at)
            if found is None or found.end() != end:
                raise ArchiveRefused("a chunk reference is malformed")
        else:
            others += end - at
        if others > LARGE_ITEM:
            raise ArchiveRefused("an item is larger than an item may be")
