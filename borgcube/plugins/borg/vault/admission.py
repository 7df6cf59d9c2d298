"""Admit one archive: audit what the client wrote and make it a real archive.

A single walk over the items checks every reference (only chunks advertised to the session
or uploaded by it), every size and every path, counts the references, and yields the
statistics, the chunk set, the next files cache and the catalog of names.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgpack
import zstandard

from borgcube.plugins.borg.gate.verify import id_hash_for
from borgcube.plugins.borg.vault.filescache import FilesCacheWriter
from borgcube.plugins.borg.vault.items import (
    ArchiveRefused,
    as_ns,
    check_item,
    item_kind,
    read_items,
)
from borgcube.plugins.borg.vault.ledger import Ledger

_TIME = re.compile(r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(\+00:00)?\Z")
_MAX_TEXT = 64 * 1024
SPOOL_BYTES = 16 << 20


@dataclass
class Walk:
    """What one walk over an archive found; sizes in bytes."""

    files: int = 0
    items: int = 0
    size: int = 0
    stored_size: int = 0
    new_size: int = 0
    chunks: int = 0
    references: Any = field(
        default_factory=lambda: tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)
    )

    def each_reference(self) -> Iterator[bytes]:
        """Yield the chunk ID of every reference, repeated ones included."""
        self.references.seek(0)
        while block := self.references.read(32 * 4096):
            for start in range(0, len(block), 32):
                yield block[start : start + 32]


def claimed_archive(manifest_plain: bytes, *, expected: str) -> bytes:
    """Return the ID of the one archive in a client's manifest.

    Raises ArchiveRefused unless it lists exactly one, under the ``expected`` name.
    """
    try:
        manifest = msgpack.unpackb(manifest_plain, raw=True, use_list=False, strict_map_key=False)
        archives = manifest[b"archives"]
        names = list(archives)
        archive_id = archives[names[0]][b"id"] if len(names) == 1 else b""
    except (ValueError, KeyError, TypeError, IndexError, msgpack.UnpackException) as error:
        raise ArchiveRefused("the manifest does not parse") from error
    if names != [expected.encode()]:
        raise ArchiveRefused("the manifest does not list exactly the ordered archive")
    if type(archive_id) is not bytes or len(archive_id) != 32:
        raise ArchiveRefused("the manifest has a malformed archive ID")
    return archive_id


def check_metadata(plain: bytes, *, expected: str) -> dict[bytes, Any]:
    """Return the archive metadata a client wrote, its shape checked.

    The client holds the key of its own authentication tag, so the tag proves nothing.
    """
    try:
        metadata = msgpack.unpackb(plain, raw=True, use_list=False, strict_map_key=False)
        items = metadata[b"items"]
        times = [metadata[b"time"], metadata.get(b"time_end", metadata[b"time"])]
        well_formed = (
            metadata[b"version"] == 1
            and metadata[b"name"] == expected.encode()
            and type(items) is tuple
            and all(type(chunk_id) is bytes and len(chunk_id) == 32 for chunk_id in items)
            and all(_TIME.match(time.decode("ascii")) for time in times)
        )
    except (ValueError, KeyError, TypeError, AttributeError, msgpack.UnpackException) as error:
        raise ArchiveRefused("the archive metadata does not parse") from error
    if not well_formed:
        raise ArchiveRefused("the archive metadata breaks the format")
    result: dict[bytes, Any] = metadata
    return result


def _text(metadata: dict[bytes, Any], key: bytes) -> str:
    value = metadata.get(key, b"")
    if type(value) is not bytes or len(value) > _MAX_TEXT:
        raise ArchiveRefused("the archive metadata has a malformed text")
    return value.decode("utf-8", "surrogateescape")


def _command_line(metadata: dict[bytes, Any]) -> tuple[str, ...]:
    value = metadata.get(b"cmdline", ())
    if type(value) is not tuple or len(value) > 10_000:
        raise ArchiveRefused("the archive metadata has a malformed command line")
    return tuple(_text({b"part": part}, b"part") for part in value)


def started_at(metadata: dict[bytes, Any]) -> datetime:
    """Return the start of the archive by the client's clock."""
    moment = datetime.fromisoformat(metadata[b"time"].decode("ascii"))
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def walk(
    ledger: Ledger,
    metadata: dict[bytes, Any],
    *,
    reference_size: Callable[[bytes], int],
    cache: FilesCacheWriter | None,
    catalog: Path | None,
    step: Callable[[], None],
) -> Walk:
    """Audit every item, without changing a reference count.

    ``reference_size`` refuses chunks the session may not use. ``step`` is called every
    500 items and may raise to stop. Raises ArchiveRefused.
    """
    found = Walk()
    id_hash = id_hash_for("blake2b" if ledger.opened.blake2 else "hmac-sha256", ledger.key.id_key)
    out = zstandard.open(catalog, "wb") if catalog else None
    pack = msgpack.Packer(autoreset=True, use_bin_type=True).pack
    names: list[bytes] = []
    references: list[bytes] = []

    def flush() -> None:
        found.references.write(b"".join(references))
        references.clear()
        if out is not None:
            out.write(b"".join(names))
        names.clear()

    def metadata_chunks() -> Any:
        for chunk_id in metadata[b"items"]:
            reference_size(chunk_id)
            references.append(chunk_id)
            yield ledger.read(chunk_id)

    try:
        for item in read_items(metadata_chunks()):
            size = check_item(item, reference_size)
            found.items += 1
            kind = item_kind(item.get(b"mode", 0))
            chunks = item.get(b"chunks") or ()
            ids = [entry[0] for entry in chunks]
            references += ids
            mtime = as_ns(item[b"mtime"])
            if kind == "-":
                found.files += 1
                if cache is not None and b"source" not in item and b"chunks" in item:
                    times = (as_ns(item.get(b"ctime", 1 << 62)), mtime)
                    cache.add(id_hash(b"/" + item[b"path"]), size, times, ids)
            found.size += size
            found.chunks += len(ids)
            for entry in item.get(b"chunks_healthy") or ():
                references.append(entry[0])
            if out is not None:
                names.append(pack((item[b"path"], kind, size, mtime)))
            if found.items % 500 == 0 or len(references) > 100_000:
                step()
                flush()
        flush()
    finally:
        if out is not None:
            out.close()
    return found


def add_references(ledger: Ledger, found: Walk) -> Iterator[tuple[bytes, int]]:
    """Count every reference of an audited archive; yield the (ID, size) of its chunks.

    Runs under the ledger's lock. Raises ArchiveRefused before anything is counted when a
    chunk went away since the audit.
    """
    for chunk_id in found.each_reference():
        if ledger.lookup(chunk_id) is None:
            raise ArchiveRefused("a chunk was deleted while the backup ran")
    for chunk_id in found.each_reference():
        first = ledger.add_reference(chunk_id)
        _, size, csize = ledger.chunks[chunk_id]
        found.stored_size += csize
        if first:
            found.new_size += csize
        yield chunk_id, size


def real_metadata(
    metadata: dict[bytes, Any], *, name: str, comment: str, found: Walk
) -> dict[str, Any]:
    """Return the metadata of the real archive: known keys only, our own figures."""
    params = metadata.get(b"chunker_params", ())
    if type(params) is not tuple or len(params) > 8:
        raise ArchiveRefused("the archive metadata has malformed chunker parameters")
    return {
        "version": 1,
        "name": name,
        "items": metadata[b"items"],
        "cmdline": _command_line(metadata),
        "hostname": _text(metadata, b"hostname"),
        "username": _text(metadata, b"username"),
        "time": metadata[b"time"].decode("ascii"),
        "time_end": metadata.get(b"time_end", metadata[b"time"]).decode("ascii"),
        "comment": comment,
        "chunker_params": tuple(
            part.decode("ascii", "replace") if isinstance(part, bytes) else part
            for part in params
            if isinstance(part, bytes | int)
        ),
        "size": found.size,
        "csize": found.stored_size,
        "nfiles": found.files,
    }
