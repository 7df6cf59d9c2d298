"""Read and judge the item stream of an archive a client wrote. Pure: no repository here.

Key names and types: Borg 1.4, "Internals, Data structures, Items". Anything not named
there is refused, so that nothing a client invents reaches Borg on another machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgpack

MAX_PATH = 4096 * 4
MAX_ITEM = 64 << 20

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


class ArchiveRefused(Exception):
    """An archive breaks a rule; the text names the rule, for the job's log."""


def read_items(chunks: Iterable[bytes]) -> Iterator[dict[bytes, Any]]:
    """Yield the items of a stream given as the plaintexts of its chunks.

    Raises ArchiveRefused when it does not parse or ends inside an item.
    """
    unpacker = msgpack.Unpacker(
        raw=True, use_list=False, strict_map_key=False, max_buffer_size=MAX_ITEM
    )
    try:
        for chunk in chunks:
            unpacker.feed(chunk)
            yield from unpacker
        if unpacker.read_bytes(1):
            raise ArchiveRefused("the item stream ends inside an item")
    except (ValueError, msgpack.UnpackException) as error:
        raise ArchiveRefused(f"the item stream does not parse: {error}") from None


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
        for key in _TIMES:
            value = item.get(key)
            if type(value) is bytes and not 8 <= len(value) <= 16:
                raise ArchiveRefused("an item has a malformed time")
    except KeyError:
        raise ArchiveRefused("an item lacks its path or time") from None
    if b"xattrs" in item:
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
