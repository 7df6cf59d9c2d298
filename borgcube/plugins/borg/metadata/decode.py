"""Decode what a client wrote, strictly: bytes in, records out. Pure; runs in ``process.py``.

What is accepted has exactly one reading: each object, packed again as Borg packs it, must be the
very bytes that came. A key twice, another order of keys, a longer form of an integer, a binary
type where Borg writes raw, anything after the end: all of that packs to other bytes, and is
refused. Key names and types: Borg 1.4, "Internals, Data structures"; packing: ``StableDict`` (keys
sorted) and msgpack's old raw type.

Archives that are in a repository already (``lenient``) may come from any borg there ever was:
they are only asked to have one meaning, not one form.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgpack

from borgcube.plugins.borg.gate.verify import MAX_MANIFEST
from borgcube.plugins.borg.metadata import form
from borgcube.plugins.borg.metadata.rules import ArchiveRefused
from borgcube.plugins.borg.metadata.stream import ItemReader, unpack_strictly

Packed = tuple[bytes, bytes]  # the head and the body of a record

_FLAG_OF: dict[bytes, int] = {
    b"source": form.SOURCE, b"chunks": form.CHUNKS, b"chunks_healthy": form.HEALTHY,
    b"rdev": form.RDEV, b"size": form.SIZE, b"ctime": form.CTIME, b"atime": form.ATIME,
    b"birthtime": form.BIRTHTIME, b"bsdflags": form.BSDFLAGS, b"xattrs": form.XATTRS,
    b"part": form.PART, b"acl_access": form.ACL_ACCESS, b"acl_default": form.ACL_DEFAULT,
    b"acl_extended": form.ACL_EXTENDED, b"acl_nfs4": form.ACL_NFS4, b"hardlink_master": form.MASTER,
}  # fmt: skip
_ALWAYS = frozenset((b"path", b"mode", b"uid", b"gid", b"user", b"group", b"mtime"))
_KNOWN = _ALWAYS | frozenset(_FLAG_OF)
_ACL_KEYS = (b"acl_access", b"acl_default", b"acl_extended", b"acl_nfs4")
MAX_XATTRS = 10_000
MAX_SHAPES = 10_000
MAX_SKIPPED = 20
MAX_NUMBER = 1 << 32
_TIME = re.compile(r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(\+00:00)?\Z")
_MAX_TEXT = 64 * 1024
_MAX_WORDS = 10_000
_MAX_WORDS_BYTES = 1 << 20


def _refused(message: str) -> ArchiveRefused:
    return ArchiveRefused(message)


class ItemDecoder:
    """Turns a stream of items into records. ``reader`` has the bytes that are not complete."""

    def __init__(self, *, lenient: bool = False, skip: bool = False) -> None:
        self.reader = ItemReader()
        self.lenient = lenient
        self.skip = skip  # leave out items that are refused, and count them
        self.skipped: list[str] = []
        self.skipped_count = 0
        self._pack = packer()
        self._shapes: dict[tuple[bytes, ...], int] = {}

    def read(self, chunk: bytes) -> Iterator[Packed]:
        """Yield the records of the items that a chunk completes. Raises ArchiveRefused."""
        for item, raw in self.reader.read(chunk):
            try:
                packed = self.record(item, raw)
            except ArchiveRefused as error:
                if not self.skip:
                    raise
                self._leave_out(item, error)
            except (KeyError, TypeError, ValueError, OverflowError, struct.error):
                odd = _refused("an item has a value that Borg does not write")
                if not self.skip:
                    raise odd from None
                self._leave_out(item, odd)
            else:
                yield packed

    def _leave_out(self, item: Any, error: ArchiveRefused) -> None:
        self.skipped_count += 1
        if len(self.skipped) < MAX_SKIPPED:
            path = item.get(b"path") if type(item) is dict else None
            name = path[:200].decode("utf-8", "replace") if type(path) is bytes else "an item"
            self.skipped.append(f"{name}: {error}")

    def record(self, item: Any, raw: bytes | bytearray) -> Packed:
        """Return the record of one unpacked item; ``raw`` are the bytes it came from."""
        if type(item) is not dict:
            raise _refused("an item is not a mapping")
        if self._pack(item) != raw:
            if not self.lenient:
                raise _refused("an item is not packed as Borg packs it")
            _check_keys(raw)
        keys = tuple(item)
        flags = self._shapes.get(keys)
        if flags is None:
            flags = self._shape(keys)
        return _record(item, flags, self.lenient)

    def _shape(self, keys: tuple[bytes, ...]) -> int:
        """Return the flags of a combination of keys that is seen for the first time."""
        if self.lenient and any(type(key) is not bytes for key in keys):
            raise _refused("an item has a key that is no text")
        if self.skip:
            if not set(keys) >= {b"path", b"mode", b"mtime"}:
                raise _refused("an item lacks its path, mode or time")
        elif self.lenient:
            if not set(keys) >= _ALWAYS:  # every borg wrote them; without an owner it ends
                raise _refused("an item lacks a field that Borg needs")
        elif not set(keys) >= _ALWAYS or list(keys) != sorted(keys):
            raise _refused("an item lacks a field, or has them in another order than Borg")
        if not (self.skip or set(keys) <= _KNOWN):  # on any other, Borg's own reader ends
            raise _refused("an item has an unknown key")
        flags = 0
        for key in keys:
            flags |= _FLAG_OF.get(key, 0)
        if not self.lenient and flags & form.HEALTHY:
            raise _refused("an item has a field that only a repair writes")
        if len(self._shapes) < MAX_SHAPES:
            self._shapes[keys] = flags
        return flags


def packer() -> Callable[[Any], bytes]:
    """Return what packs an object as Borg does, but for the order of keys. Not for threads."""
    pack: Callable[[Any], bytes] = msgpack.Packer(use_bin_type=False, autoreset=True).pack
    return pack


def _check_keys(raw: bytes | bytearray) -> None:
    """Refuse a map that has a key twice, or a key that is no text."""
    unpacker = msgpack.Unpacker(raw=True, max_buffer_size=len(raw) + 1)
    unpacker.feed(raw)
    seen: set[bytes] = set()
    count = unpacker.read_map_header()
    for _ in range(count):
        key = unpacker.unpack()
        if type(key) is not bytes:
            raise _refused("an item has a key that is no text")
        seen.add(key)
        if key == b"xattrs":
            inner = unpacker.read_map_header()
            names = set()
            for _ in range(inner):
                names.add(unpacker.unpack())
                unpacker.skip()
            if len(names) != inner:
                raise _refused("an item has an extended attribute twice")
        else:
            unpacker.skip()
    if len(seen) != count:
        raise _refused("an item has a key twice")


def _whole(value: Any, bound: int) -> int:
    """Return a number from 0 up to, but not including, ``bound``."""
    if type(value) is not int or not 0 <= value < bound:
        raise _refused("an item has a number out of its range")
    return value


def _time_of(item: dict[bytes, Any], key: bytes, lenient: bool) -> int:
    value = item[key]
    if lenient and type(value) is bytes and 8 <= len(value) <= 16:
        value = int.from_bytes(value, "little", signed=True)  # of Borg 1.0 and before
    if type(value) is int and (0 <= value < 1 << 63 or (lenient and -(1 << 63) <= value < 1 << 63)):
        return value
    raise _refused("an item has a time out of its range")


def _record(item: dict[bytes, Any], flags: int, lenient: bool) -> Packed:
    path = item[b"path"]
    mode, uid, gid = item[b"mode"], item.get(b"uid", 0), item.get(b"gid", 0)
    user, group = item.get(b"user"), item.get(b"group")
    if not (type(path) is bytes and type(mode) is type(uid) is type(gid) is int):
        raise _refused("an item has a value of another type than Borg writes")
    if not (0 <= mode < 1 << 16 and 0 <= uid < MAX_NUMBER and 0 <= gid < MAX_NUMBER):
        raise _refused("an item has a number out of its range")
    if user is None:
        user = b""
    else:
        flags |= form.USER
    if group is None:
        group = b""
    else:
        flags |= form.GROUP
    source = item[b"source"] if flags & form.SOURCE else b""
    if not type(user) is type(group) is type(source) is bytes:
        raise _refused("an item has a value of another type than Borg writes")
    mtime = _time_of(item, b"mtime", lenient)
    ctime = _time_of(item, b"ctime", lenient) if flags & form.CTIME else 0
    size, chunks, count = 0, b"", 0
    if flags & form.CHUNKS:
        found = item[b"chunks"]
        if found is None and lenient:
            flags &= ~form.CHUNKS
        else:
            chunks, count, total = _entries(found)
            size = total
    if flags & form.SIZE:
        claimed = _whole(item[b"size"], 1 << 63)
        if flags & form.CHUNKS and claimed != size:
            raise _refused("an item's size is not the sum of its chunks")
    elif lenient and flags & form.CHUNKS:
        flags |= form.SIZE  # archives of Borg before 1.1 do not say it
    if flags & form.MASTER:
        master = item[b"hardlink_master"]
        if type(master) is not bool:
            raise _refused("an item has a value of another type than Borg writes")
        if master:
            flags |= form.IS_MASTER
    if not flags & _RARE:
        head = form.HEAD.pack(
            flags, mode, uid, gid, 0, len(path), len(user), len(group), len(source), count,
            0, 0, 0, 0, 0, 0, 0, 0, size, mtime, ctime, 0, 0,
        )  # fmt: skip
        return head, b"".join((path, user, group, source, chunks))
    return _rare(
        item, flags, lenient, (mode, uid, gid, size, mtime, ctime),
        (path, user, group, source), (chunks, count),
    )  # fmt: skip


_RARE = (
    form.HEALTHY | form.RDEV | form.ATIME | form.BIRTHTIME | form.BSDFLAGS | form.XATTRS | form.PART
    | form.ACL_ACCESS | form.ACL_DEFAULT | form.ACL_EXTENDED | form.ACL_NFS4
)  # fmt: skip


def _rare(
    item: dict[bytes, Any], flags: int, lenient: bool, numbers: tuple[int, ...],
    texts: tuple[bytes, ...], chunks: tuple[bytes, int],
) -> Packed:  # fmt: skip
    """Return the record of an item that has fields which most have not."""
    healthy, healthy_count = b"", 0
    if flags & form.HEALTHY:
        if item[b"chunks_healthy"] is None:
            flags &= ~form.HEALTHY
        else:
            healthy, healthy_count, _ = _entries(item[b"chunks_healthy"])
    xattrs = b""
    if flags & form.XATTRS:
        found = item[b"xattrs"]
        if type(found) is not dict or len(found) > MAX_XATTRS:
            raise _refused("an item has malformed extended attributes")
        for name, value in found.items():
            if type(name) is not bytes or type(value) not in (bytes, type(None)):
                raise _refused("an item has malformed extended attributes")
        if not lenient and list(found) != sorted(found):
            raise _refused("an item has extended attributes in another order than Borg")
        xattrs = form.pack_xattrs(dict(sorted(found.items())))
    acls = [item.get(key, b"") for key in _ACL_KEYS]
    if any(type(one) is not bytes for one in acls):
        raise _refused("an item has a value of another type than Borg writes")
    mode, uid, gid, size, mtime, ctime = numbers
    head = form.HEAD.pack(
        flags, mode, uid, gid, _whole(item.get(b"part", 0), MAX_NUMBER),
        *(len(one) for one in texts), chunks[1], healthy_count,
        len(xattrs), *(len(one) for one in acls),
        _whole(item.get(b"rdev", 0), 1 << 64), _whole(item.get(b"bsdflags", 0), MAX_NUMBER), size,
        mtime, ctime,
        _time_of(item, b"atime", lenient) if flags & form.ATIME else 0,
        _time_of(item, b"birthtime", lenient) if flags & form.BIRTHTIME else 0,
    )  # fmt: skip
    return head, b"".join((*texts, chunks[0], healthy, xattrs, *acls))


def _entries(found: Any) -> tuple[bytes, int, int]:
    """Return a list of chunks in packed form, how many they are, and the sum of their sizes."""
    if type(found) is not tuple:
        raise _refused("a list of chunks is malformed")
    total = 0
    parts: list[bytes] = []
    pack = form.ENTRY.pack
    for entry in found:
        if type(entry) is not tuple or len(entry) != 3:
            raise _refused("a chunk reference is malformed")
        chunk_id, size, csize = entry
        if type(chunk_id) is not bytes or len(chunk_id) != 32:
            raise _refused("a chunk reference is malformed")
        if not (type(size) is type(csize) is int and 0 <= size < MAX_NUMBER > csize >= 0):
            raise _refused("a chunk reference has a number out of its range")
        parts.append(pack(chunk_id, size))
        total += size
    return b"".join(parts), len(parts), total


# The archive and the manifest ------------------------------------------------------------


@dataclass(frozen=True)
class ArchiveFacts:
    """What an archive's own metadata says, typed. Times are aware, in UTC; texts are the
    client's bytes; ``items`` are IDs of 32 bytes."""

    items: tuple[bytes, ...]
    time: datetime
    time_end: datetime
    cmdline: tuple[bytes, ...]
    hostname: bytes
    username: bytes
    chunker_params: tuple[str | int, ...]


_ARCHIVE_KEYS: dict[bytes, type] = {
    b"version": int, b"name": bytes, b"comment": bytes, b"items": tuple, b"cmdline": tuple,
    b"hostname": bytes, b"username": bytes, b"time": bytes, b"time_end": bytes, b"cwd": bytes,
    b"chunker_params": tuple, b"size": int, b"csize": int, b"nfiles": int, b"size_parts": int,
    b"csize_parts": int, b"nfiles_parts": int, b"tam": dict,
}  # fmt: skip
_NEEDED = (
    b"version", b"name", b"items", b"cmdline", b"hostname", b"username", b"time", b"time_end",
    b"chunker_params",
)  # fmt: skip


# Borg writes the list of chunk IDs of the items as an array of 32-byte strings.
_ID_LIST = re.compile(rb"(?:[\x90-\x9f]|\xdc..|\xdd.{4})(?:\xda\x00\x20.{32})*+", re.DOTALL)
# Of an archive's metadata but its list of items; an empty map takes one byte there, 64 in memory.
_MAX_OTHERS = 4 << 20


def check_bulk(plain: bytes) -> None:
    """Refuse archive metadata that is large by anything but its list of items, before any of it
    is unpacked."""
    unpacker = msgpack.Unpacker(raw=True, max_buffer_size=len(plain) + 1)
    unpacker.feed(plain)
    others = 0
    try:
        for _ in range(unpacker.read_map_header()):
            at = unpacker.tell()
            unpacker.skip()
            value_at = unpacker.tell()
            unpacker.skip()
            end = unpacker.tell()
            if plain[at:value_at] == b"\xa5items":
                found = _ID_LIST.match(plain, value_at)
                if found is None or found.end() != end:
                    raise _refused("the archive metadata has a malformed list of items")
            else:
                others += end - at
            if others > _MAX_OTHERS:
                raise _refused("the archive metadata has an over-long value")
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise _refused(f"the archive metadata does not parse: {type(error).__name__}") from None


def _one_map(plain: bytes, what: str) -> dict[bytes, Any]:
    """Return the map that ``plain`` is, packed as Borg packs it."""
    found = unpack_strictly(plain)
    if type(found) is not dict:
        raise _refused(f"{what} is not a mapping")
    _check_sorted(found, what)
    try:
        same = packer()(found) == plain
    except (ValueError, TypeError, OverflowError):
        same = False
    if not same:
        raise _refused(f"{what} is not packed as Borg packs it")
    return found


def _check_sorted(found: dict[bytes, Any], what: str) -> None:
    if any(type(key) is not bytes for key in found) or list(found) != sorted(found):
        raise _refused(f"{what} has keys that Borg does not write so")


def decode_archive(plain: bytes, *, expected: str) -> ArchiveFacts:
    """Return what the metadata of a client's archive says; its shape is Borg's.

    The client holds the key of its own authentication tag, so the tag proves nothing.
    Raises ArchiveRefused.
    """
    check_bulk(plain)
    found = _one_map(plain, "the archive metadata")
    for key, value in found.items():
        if _ARCHIVE_KEYS.get(key) is not type(value):
            raise _refused("the archive metadata has an unknown key or a value of another type")
    if any(key not in found for key in _NEEDED):
        raise _refused("the archive metadata lacks a value")
    if found[b"version"] != 1 or found[b"name"] != expected.encode():
        raise _refused("the archive metadata is not that of the ordered archive")
    ids = found[b"items"]
    if any(type(one) is not bytes or len(one) != 32 for one in ids):
        raise _refused("the archive metadata has a malformed list of items")
    check_words(found[b"cmdline"], found[b"hostname"], found[b"username"])
    return ArchiveFacts(
        items=ids, time=_moment(found[b"time"]), time_end=_moment(found[b"time_end"]),
        cmdline=found[b"cmdline"], hostname=found[b"hostname"], username=found[b"username"],
        chunker_params=check_chunker(found[b"chunker_params"]),
    )  # fmt: skip


def check_words(cmdline: tuple[Any, ...], *texts: bytes) -> None:
    """Refuse a command line, or other texts, that are longer than they may be."""
    if (
        len(cmdline) > _MAX_WORDS
        or any(type(one) is not bytes for one in cmdline)
        or sum(map(len, cmdline)) > _MAX_WORDS_BYTES
    ):
        raise _refused("the archive metadata has a malformed command line")
    if any(len(one) > _MAX_TEXT for one in texts):
        raise _refused("the archive metadata has a malformed text")


def _moment(value: bytes) -> datetime:
    try:
        text = value.decode("ascii")
        if _TIME.match(text) is None:
            raise ValueError(text)
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise _refused("the archive metadata has a malformed time") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def check_chunker(value: tuple[Any, ...]) -> tuple[str | int, ...]:
    """Return a chunker's name and its numbers; Borg knows ``buzhash`` and ``fixed``."""
    name, *numbers = value or (None,)
    if name not in (b"buzhash", b"fixed") or len(numbers) > 4:
        raise _refused("the archive metadata has malformed chunker parameters")
    if any(type(one) is not int or not 0 <= one < MAX_NUMBER for one in numbers):
        raise _refused("the archive metadata has malformed chunker parameters")
    return (name.decode(), *numbers)


def decode_stored_archive(plain: bytes) -> tuple[bytes, ...]:
    """Return the IDs of the metadata chunks of an archive that is stored already. Its other
    values are Borg's affair. Raises ArchiveRefused."""
    unpacker = msgpack.Unpacker(raw=True, use_list=False, max_buffer_size=len(plain) + 1)
    unpacker.feed(plain)
    found: dict[bytes, tuple[bytes, ...]] = {}
    keys: set[bytes] = set()
    try:
        count = unpacker.read_map_header()
        for _ in range(count):
            key = unpacker.unpack()
            keys.add(key)
            if key == b"items":
                found[key] = unpacker.unpack()
            else:
                unpacker.skip()
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise _refused(f"its metadata does not parse: {type(error).__name__}") from None
    ids = found.get(b"items")
    if len(keys) != count or unpacker.tell() != len(plain):
        raise _refused("the archive metadata has a key twice, or goes on after its end")
    if type(ids) is not tuple or any(type(one) is not bytes or len(one) != 32 for one in ids):
        raise _refused("the archive metadata has a malformed list of items")
    return ids


_MANIFEST_KEYS: dict[bytes, type] = {
    b"archives": dict, b"config": dict, b"item_keys": tuple, b"timestamp": bytes, b"version": int,
    b"tam": dict,
}  # fmt: skip


def decode_manifest(plain: bytes, *, expected: str) -> bytes:
    """Return the ID of the one archive in a client's manifest.

    Raises ArchiveRefused unless it lists exactly one, under the ``expected`` name.
    """
    if len(plain) > MAX_MANIFEST:
        raise _refused("the manifest is larger than that of one archive")
    found = _one_map(plain, "the manifest")
    for key, value in found.items():
        if _MANIFEST_KEYS.get(key) is not type(value):
            raise _refused("the manifest has an unknown key or a value of another type")
    archives = found.get(b"archives")
    if archives is None:
        raise _refused("the manifest lists no archives")
    if list(archives) != [expected.encode()]:
        raise _refused("the manifest does not list exactly the ordered archive")
    entry = archives[expected.encode()]
    if type(entry) is not dict or list(entry) != [b"id", b"time"]:
        raise _refused("the manifest has a malformed entry")
    archive_id = entry[b"id"]
    if type(archive_id) is not bytes or len(archive_id) != 32 or type(entry[b"time"]) is not bytes:
        raise _refused("the manifest has a malformed archive ID")
    return archive_id


def read_records(chunks: Iterable[bytes], *, lenient: bool = False) -> Iterator[form.Record]:
    """Yield the records of a whole stream, given as the plaintexts of its chunks. For tests and
    for judges; the vault has this done by a process of its own."""
    decoder = ItemDecoder(lenient=lenient)
    for chunk in chunks:
        yield from form.read_block(form.pack_block(list(decoder.read(chunk))))
    decoder.reader.finish()
