"""Encode items as Borg 1.4 writes them, and cut them into metadata chunks as Borg does.

Used by the vault: what it stores of an archive's metadata is made here, from records that
``rules.py`` has judged. Keys are written in sorted order, texts as msgpack's old raw type
(``borg.helpers.msgpack``, ``StableDict``); chunks are cut by Borg's own ``ChunkBuffer``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack
from borg.archive import ChunkBuffer

from borgcube.plugins.borg.metadata import form
from borgcube.plugins.borg.metadata.form import ENTRY, Record

# Entries of a chunk list that are packed at a time, so that a long one does not fill memory.
SLICE_ENTRIES = 4096
# What may be referenced: its size and its stored size in bytes; raises for anything else.
Lookup = Callable[[bytes], tuple[int, int]]


class WrongSize(ValueError):
    """A chunk reference says another size than the chunk has."""


class ItemEncoder:
    """Encodes records. Not for several threads at once."""

    def __init__(self) -> None:
        self._packer = msgpack.Packer(use_bin_type=False, autoreset=False)

    def encode(self, record: Record, lookup: Lookup) -> tuple[bytes, list[bytes]]:
        """Return an item as Borg writes it, and the IDs of its chunks, in order.

        Sizes are those that ``lookup`` tells. Raises what it raises, and WrongSize.
        """
        flags, pack = record.flags, self._packer.pack
        ids: list[bytes] = []
        if flags & _MANY:
            self._packer.pack_map_header(_count_keys(flags))
            if flags & form.ACL_ACCESS:
                pack(b"acl_access"), pack(record.acls[0])
            if flags & form.ACL_DEFAULT:
                pack(b"acl_default"), pack(record.acls[1])
            if flags & form.ACL_EXTENDED:
                pack(b"acl_extended"), pack(record.acls[2])
            if flags & form.ACL_NFS4:
                pack(b"acl_nfs4"), pack(record.acls[3])
            if flags & form.ATIME:
                pack(b"atime"), pack(record.atime)
            if flags & form.BIRTHTIME:
                pack(b"birthtime"), pack(record.birthtime)
            if flags & form.BSDFLAGS:
                pack(b"bsdflags"), pack(record.bsdflags)
            if flags & form.CHUNKS:
                pack(b"chunks")
                self._entries(record.chunks, lookup, ids)
            if flags & form.HEALTHY:
                pack(b"chunks_healthy")
                self._entries(record.healthy, lookup, [])
            if flags & form.CTIME:
                pack(b"ctime"), pack(record.ctime)
            pack(b"gid"), pack(record.gid)
            pack(b"group"), pack(record.group if flags & form.GROUP else None)
            if flags & form.MASTER:
                pack(b"hardlink_master"), pack(bool(flags & form.IS_MASTER))
            pack(b"mode"), pack(record.mode)
            pack(b"mtime"), pack(record.mtime)
            if flags & form.PART:
                pack(b"part"), pack(record.part)
            pack(b"path"), pack(record.path)
            if flags & form.RDEV:
                pack(b"rdev"), pack(record.rdev)
            if flags & form.SIZE:
                pack(b"size"), pack(record.size)
            if flags & form.SOURCE:
                pack(b"source"), pack(record.source)
            pack(b"uid"), pack(record.uid)
            pack(b"user"), pack(record.user if flags & form.USER else None)
            if flags & form.XATTRS:
                xattrs = form.read_xattrs(record.xattrs)
                pack(b"xattrs"), pack(dict(sorted(xattrs.items())))
        else:
            pack(self._usual(record, lookup, ids))
        data: bytes = self._packer.bytes()
        self._packer.reset()
        return data, ids

    def reset(self) -> None:
        """Forget what was begun, after an item that was refused in the middle."""
        self._packer.reset()

    def _usual(self, record: Record, lookup: Lookup, ids: list[bytes]) -> dict[bytes, Any]:
        """Return the mapping of an item with the usual fields, its keys in order."""
        flags = record.flags
        item: dict[bytes, Any] = {}
        if flags & form.CHUNKS:
            entries = []
            for chunk_id, size in ENTRY.iter_unpack(record.chunks):
                found = lookup(chunk_id)
                if found[0] != size:
                    raise WrongSize
                ids.append(chunk_id)
                entries.append((chunk_id, *found))
            item[b"chunks"] = entries
        if flags & form.CTIME:
            item[b"ctime"] = record.ctime
        item[b"gid"] = record.gid
        item[b"group"] = record.group if flags & form.GROUP else None
        if flags & form.MASTER:
            item[b"hardlink_master"] = bool(flags & form.IS_MASTER)
        item[b"mode"] = record.mode
        item[b"mtime"] = record.mtime
        item[b"path"] = record.path
        if flags & form.SIZE:
            item[b"size"] = record.size
        if flags & form.SOURCE:
            item[b"source"] = record.source
        item[b"uid"] = record.uid
        item[b"user"] = record.user if flags & form.USER else None
        return item

    def _entries(self, packed: bytes, lookup: Lookup, ids: list[bytes]) -> None:
        packer = self._packer
        packer.pack_array_header(len(packed) // ENTRY.size)
        for chunk_id, size in ENTRY.iter_unpack(packed):
            found = lookup(chunk_id)
            if found[0] != size:
                raise WrongSize
            ids.append(chunk_id)
            packer.pack((chunk_id, *found))


# Items with none of these are written from one mapping, which is quicker.
_MANY = (
    form.ACL_ACCESS | form.ACL_DEFAULT | form.ACL_EXTENDED | form.ACL_NFS4 | form.ATIME
    | form.BIRTHTIME | form.BSDFLAGS | form.HEALTHY | form.PART | form.RDEV | form.XATTRS
)  # fmt: skip
_ALWAYS = 7  # gid, group, mode, mtime, path, uid, user
_KEYS = form.ALL_FLAGS & ~(form.USER | form.GROUP | form.IS_MASTER)


def _count_keys(flags: int) -> int:
    return _ALWAYS + (flags & _KEYS).bit_count()


class ItemStream(ChunkBuffer):  # type: ignore[misc]  # borg has no types
    """Cuts encoded items into metadata chunks, by Borg's own rule, seed and size."""

    def __init__(self, key: Any, write: Callable[[bytes], bytes]) -> None:
        super().__init__(key)
        self._write = write

    def add_encoded(self, data: bytes) -> None:
        """Add encoded items; chunks that are complete go to ``write``, which tells their IDs."""
        self.buffer.write(data)
        if self.is_full():
            self.flush()

    def write_chunk(self, chunk: bytes) -> bytes:
        """Hand one chunk over; Borg's name for it."""
        return self._write(chunk)

    def finish(self) -> tuple[bytes, ...]:
        """Hand over what is left; return the IDs of all chunks, in order."""
        self.flush(flush=True)
        return tuple(self.chunks)
