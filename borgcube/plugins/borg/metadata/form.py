"""The records in which decoded items go from the reader process to the vault.

A block is a count, so many heads of fixed size, and one body with what has no fixed size, in the
same order. Nothing in it is nested, so that the vault parses it with ``struct`` alone. The
reader may have been taken over by the client whose bytes it read: :func:`read_block` trusts no
length, and what the values may be is for ``rules.py``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

# flags, mode, uid, gid, part; lengths in bytes of path, user, group and source; entries of chunks
# and chunks_healthy; lengths in bytes of xattrs and the four ACLs; rdev, bsdflags, size; mtime,
# ctime, atime, birthtime in nanoseconds.
HEAD = struct.Struct("<16I3Q4q")
COUNT = struct.Struct("<I")
ENTRY = struct.Struct("<32sI")  # chunk ID, size in bytes
XATTR = struct.Struct("<Ii")  # length of a name, and of its value; -1 for no value

# Which of the optional values an item has.
(
    USER, GROUP, SOURCE, CHUNKS, HEALTHY, RDEV, SIZE, CTIME, ATIME, BIRTHTIME, BSDFLAGS, XATTRS,
    PART, ACL_ACCESS, ACL_DEFAULT, ACL_EXTENDED, ACL_NFS4, MASTER, IS_MASTER,
) = (1 << n for n in range(19))  # fmt: skip
ALL_FLAGS = (1 << 19) - 1
ACLS = (ACL_ACCESS, ACL_DEFAULT, ACL_EXTENDED, ACL_NFS4)


class BadBlock(Exception):
    """A block is not of the form: the reader process is broken, or not ours any more."""


class Record(NamedTuple):
    """One item. ``chunks`` and ``healthy`` are packed entries of :data:`ENTRY`, ``xattrs`` is
    packed too; what ``flags`` does not name is 0 or empty."""

    flags: int
    mode: int
    uid: int
    gid: int
    part: int
    rdev: int
    bsdflags: int
    size: int
    mtime: int
    ctime: int
    atime: int
    birthtime: int
    path: bytes
    user: bytes
    group: bytes
    source: bytes
    chunks: bytes
    healthy: bytes
    xattrs: bytes
    acls: tuple[bytes, bytes, bytes, bytes]


def pack_block(records: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return a block of (head, body) pairs."""
    heads = [head for head, _ in records]
    return b"".join([COUNT.pack(len(records)), *heads, *(body for _, body in records)])


def read_block(data: bytes) -> Iterator[Record]:
    """Yield the records of a block. Raises BadBlock."""
    if len(data) < COUNT.size:
        raise BadBlock("a block is too short")
    (count,) = COUNT.unpack_from(data)
    at = COUNT.size + count * HEAD.size
    if at > len(data):
        raise BadBlock("a block is shorter than its heads")
    length = len(data)
    make = Record
    for (
        flags, mode, uid, gid, part, n_path, n_user, n_group, n_source, n_chunks, n_healthy,
        n_xattrs, n_access, n_default, n_extended, n_nfs4,
        rdev, bsdflags, size, mtime, ctime, atime, birthtime,
    ) in HEAD.iter_unpack(memoryview(data)[COUNT.size : at]):  # fmt: skip
        path = data[at : (at := at + n_path)]
        user = data[at : (at := at + n_user)]
        group = data[at : (at := at + n_group)]
        source = data[at : (at := at + n_source)]
        chunks = data[at : (at := at + n_chunks * ENTRY.size)]
        if flags & _RARE:
            healthy = data[at : (at := at + n_healthy * ENTRY.size)]
            xattrs = data[at : (at := at + n_xattrs)]
            acls = (
                data[at : (at := at + n_access)],
                data[at : (at := at + n_default)],
                data[at : (at := at + n_extended)],
                data[at : (at := at + n_nfs4)],
            )
        else:
            healthy, xattrs, acls = b"", b"", _NO_ACLS
        if at > length or flags > ALL_FLAGS:
            raise BadBlock("a record does not fit its block")
        yield make(
            flags, mode, uid, gid, part, rdev, bsdflags, size, mtime, ctime, atime, birthtime,
            path, user, group, source, chunks, healthy, xattrs, acls,
        )  # fmt: skip
    if at != length:
        raise BadBlock("a block goes on after its last record")


_RARE = HEALTHY | XATTRS | ACL_ACCESS | ACL_DEFAULT | ACL_EXTENDED | ACL_NFS4
_NO_ACLS = (b"", b"", b"", b"")


def pack_xattrs(xattrs: dict[bytes, bytes | None]) -> bytes:
    """Return extended attributes in their packed form, in the order of the mapping."""
    parts: list[bytes] = []
    for name, value in xattrs.items():
        parts += (XATTR.pack(len(name), -1 if value is None else len(value)), name, value or b"")
    return b"".join(parts)


def read_xattrs(data: bytes) -> dict[bytes, bytes | None]:
    """Return extended attributes by name. Raises BadBlock, for a name that comes twice too."""
    found: dict[bytes, bytes | None] = {}
    at = count = 0
    while at < len(data):
        if at + XATTR.size > len(data):
            raise BadBlock("an extended attribute is cut off")
        n_name, n_value = XATTR.unpack_from(data, at)
        at += XATTR.size
        name = data[at : (at := at + n_name)]
        found[name] = None if n_value < 0 else data[at : (at := at + n_value)]
        count += 1
    if at != len(data) or len(found) != count:
        raise BadBlock("extended attributes are malformed")
    return found
