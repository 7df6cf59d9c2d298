"""Read and judge the item stream of an archive a client wrote. Pure: no repository here.

Key names and types: Borg 1.4, "Internals, Data structures, Items". Anything not named
there is refused, so that nothing a client invents reaches Borg on another machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgpack

MAX_PATH = 4096 * 4
# One item may take this many bytes; a file of 3 TB in usual chunks does.
MAX_ITEM = 64 << 20
# An item up to here is unpacked as it is: an empty map takes one byte there and 64 in
# memory. A larger one must be a long list of chunks, whose form is checked before.
LARGE_ITEM = 1 << 20
PIECE = 256 << 10
MAX_XATTRS = 10_000
MAX_ID = 1 << 32
MAX_NANOSECONDS = 1 << 63

_TIMES = (b"mtime", b"ctime", b"atime", b"birthtime")
_BYTES = (bytes,)
_INT = (int, bytes)  # Borg writes integers beyond 63 bits as bytes
_KEY_TYPES: dict[bytes, tuple[type, ...]] = {
    b"path": _BYTES,
    b"source": _BYTES,
    b"rdev": (int,),
    b"chunks": (tuple, type(None)),
    b"chunks_healthy": (tuple, type(None)),
    b"hardlink_master": (bool,),
    b"mode": (int,),
    b"user": (bytes, type(None)),
    b"group": (bytes, type(None)),
    b"uid": (int,),
    b"gid": (int,),
    b"mtime": _INT,
    b"atime": _INT,
    b"ctime": _INT,
    b"birthtime": _INT,
    b"size": (int,),
    b"xattrs": (dict,),
    b"bsdflags": (int,),
    b"acl_nfs4": _BYTES,
    b"acl_access": _BYTES,
    b"acl_default": _BYTES,
    b"acl_extended": _BYTES,
    b"part": (int,),
}
# Numbers that system calls take; larger ones would end a restore by borg half-way.
_BOUNDS = (
    (b"mode", 1 << 16),
    (b"uid", MAX_ID),
    (b"gid", MAX_ID),
    (b"rdev", 1 << 64),
    (b"bsdflags", 1 << 32),
    (b"size", 1 << 63),
    (b"part", 1 << 32),
)


class ArchiveRefused(Exception):
    """An archive breaks a rule; the text names the rule, for the job's log.

    ``keep`` says that an honest client may be the reason: what it uploaded is kept for its
    next run. ``kind`` is the failure cause's.
    """

    def __init__(self, message: str, *, kind: str = "archive-refused", keep: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.keep = keep


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
        yield from reader.read(chunk)
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

    def read(self, chunk: bytes) -> Iterator[Any]:
        """Yield the items that a chunk completes. Raises ArchiveRefused."""
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
        self._unpacker = _unpacker(longest=LARGE_ITEM // 32, widest=MAX_XATTRS)
        self._given = 0  # bytes of complete items since this unpacker was made
        self._measure: Any = None

    def feed(self, piece: bytes) -> Iterator[Any]:
        """Yield the items that ``piece`` completes."""
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
                self._given = self._unpacker.tell()
                yield item
            done = True
        except ValueError:  # perhaps only longer than most; if not, measuring fails as well
            done = False
        del self.rest[: self._given - given]
        if not done or len(self.rest) > LARGE_ITEM:
            self._measure = _unpacker()
            self._measure.feed(bytes(self.rest))
            yield from self._large()

    def _large(self) -> Iterator[Any]:
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
        yield unpack_strictly(item)
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


def check_path(path: bytes) -> None:
    """Refuse a path that is absolute, leaves its root, or is too long."""
    if not path or len(path) > MAX_PATH or path[0] == 47 or b"\0" in path:
        raise ArchiveRefused("an item has an empty, absolute or over-long path")
    if b".." in path and b".." in path.split(b"/"):
        raise ArchiveRefused("an item's path contains '..'")


def check_item(item: Any, chunk_size: Callable[[bytes], int]) -> int:
    """Check one item against the rules and return its content's size in bytes.

    ``chunk_size`` returns the plaintext size of a chunk the session may reference and
    raises ArchiveRefused for any other.
    """
    if type(item) is not dict:
        raise ArchiveRefused("an item is not a mapping")
    types = _KEY_TYPES
    for key, value in item.items():
        allowed = types.get(key)
        if allowed is None or type(value) not in allowed:
            raise ArchiveRefused("an item has an unknown key or a value of the wrong type")
    try:
        check_path(item[b"path"])
        item[b"mtime"]
    except KeyError:
        raise ArchiveRefused("an item lacks its path or time") from None
    for key in _TIMES:
        if key in item:
            _check_time(item[key])
    for key, bound in _BOUNDS:
        if not 0 <= item.get(key, 0) < bound:
            raise ArchiveRefused("an item has a number out of its range")
    source = item.get(b"source")
    if source is not None:
        _check_source(source, item.get(b"mode", 0))
    if b"xattrs" in item:
        if len(item[b"xattrs"]) > MAX_XATTRS:
            raise ArchiveRefused("an item has too many extended attributes")
        for name, value in item[b"xattrs"].items():
            if type(name) is not bytes or type(value) not in (bytes, type(None)):
                raise ArchiveRefused("an item has malformed extended attributes")
    total = 0
    chunks = item.get(b"chunks")
    if chunks:
        total = _check_chunks(chunks, chunk_size)
        size = item.get(b"size")
        if size is not None and size != total:
            raise ArchiveRefused("an item's size is not the sum of its chunks")
    healthy = item.get(b"chunks_healthy")
    if healthy:
        _check_chunks(healthy, chunk_size)
    return total


def _check_time(value: int | bytes) -> None:
    """Refuse what does not fit Borg's own time, a signed number of 64 bits of nanoseconds."""
    if type(value) is bytes and not 8 <= len(value) <= 16:
        raise ArchiveRefused("an item has a malformed time")
    if not -MAX_NANOSECONDS <= as_ns(value) < MAX_NANOSECONDS:
        raise ArchiveRefused("an item has a time out of its range")


def _check_source(source: bytes, mode: int) -> None:
    """Refuse a hard link out of the archive; a symbolic link may point anywhere."""
    if item_kind(mode) != "l":
        check_path(source)
    elif not source or len(source) > MAX_PATH or b"\0" in source:
        raise ArchiveRefused("an item has a malformed link")


def _check_chunks(chunks: Any, chunk_size: Callable[[bytes], int]) -> int:
    total = 0
    for entry in chunks:
        try:
            chunk_id, size, csize = entry
        except (TypeError, ValueError):
            raise ArchiveRefused("a chunk reference is malformed") from None
        if type(chunk_id) is not bytes or type(size) is not int or type(csize) is not int:
            raise ArchiveRefused("a chunk reference is malformed")
        if chunk_size(chunk_id) != size:
            raise ArchiveRefused("a chunk reference has the wrong size")
        total += size
    return total


def item_kind(mode: int) -> str:
    """Return ``ls``'s letter for a file mode: ``-``, ``d``, ``l``, ``p``, ``c``, ``b``, ``s``."""
    return {0o10: "-", 0o04: "d", 0o12: "l", 0o01: "p", 0o02: "c", 0o06: "b", 0o14: "s"}.get(
        (mode >> 12) & 0o17, "?"
    )


def as_ns(value: int | bytes) -> int:
    """Return a Borg time in nanoseconds; integers may come as little-endian bytes."""
    return int.from_bytes(value, "little", signed=True) if isinstance(value, bytes) else value
