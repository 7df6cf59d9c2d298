"""Admit one archive: audit what the client wrote and make it a real archive.

A single walk over the items checks every reference (only chunks advertised to the session
or uploaded by it), every size and every path, counts the references, and yields the
statistics, the chunk set, the next files cache and the catalog of names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgpack
import zstandard
from borg.hashindex import ChunkIndex

from borgcube.core.untrusted import escaped
from borgcube.plugins.borg.gate.verify import MAX_MANIFEST, id_hash_for
from borgcube.plugins.borg.vault.audit import Ahead, Block, Figures, Judge
from borgcube.plugins.borg.vault.filescache import FilesCacheWriter
from borgcube.plugins.borg.vault.fresh import Roots
from borgcube.plugins.borg.vault.items import ArchiveRefused, ItemReader, unpack_strictly
from borgcube.plugins.borg.vault.ledger import Ledger
from borgcube.plugins.borg.vault.limits import ClientLimits

_TIME = re.compile(r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(\+00:00)?\Z")
# Borg writes the list of chunk IDs of the items as an array of 32-byte strings.
_ID_LIST = re.compile(
    rb"(?:[\x90-\x9f]|\xdc..|\xdd.{4})(?:(?:\xc4\x20|\xda\x00\x20).{32})*+", re.DOTALL
)
_KNOWN_KEYS = (
    b"version", b"name", b"time", b"time_end", b"cmdline", b"hostname", b"username",
    b"chunker_params",
)  # fmt: skip
_MAX_TEXT = 64 * 1024
MAX_KEY = 64 * 1024 * 1024  # bytes of one value that is skipped over
MAX_KEYS = 64
MAX_VALUE = 1 << 20
# How far the clock of a client may be from ours; more would let it steer retention.
MAX_CLOCK_ERROR = timedelta(days=1)
# What one archive may hold at most; each is beyond what Borg itself can handle well.
MAX_ITEMS = 100_000_000
MAX_REFERENCES = 200_000_000
MAX_STREAM_BYTES = 64 << 30
# Metadata repeats itself only inside the chunk list of a large file that does.
MAX_REPEATED_BYTES = 1 << 30


@dataclass
class Walk(Figures):
    """What one walk over an archive found; sizes in bytes."""

    stored_size: int = 0
    roots: dict[str, int] = field(default_factory=dict)  # path of the plan -> files below it
    ahead: int = 0  # items that were judged while the client still walked
    references: Any = field(default_factory=ChunkIndex)  # chunk ID -> (count, size, 0)


def claimed_archive(manifest_plain: bytes, *, expected: str) -> bytes:
    """Return the ID of the one archive in a client's manifest.

    Raises ArchiveRefused unless it lists exactly one, under the ``expected`` name.
    """
    if len(manifest_plain) > MAX_MANIFEST:
        raise ArchiveRefused("the manifest is larger than that of one archive")
    manifest = unpack_strictly(manifest_plain)
    archives = manifest.get(b"archives") if type(manifest) is dict else None
    if type(archives) is not dict:
        raise ArchiveRefused("the manifest lists no archives")
    if list(archives) != [expected.encode()]:
        raise ArchiveRefused("the manifest does not list exactly the ordered archive")
    entry = archives[expected.encode()]
    archive_id = entry.get(b"id") if type(entry) is dict else None
    if type(archive_id) is not bytes or len(archive_id) != 32:
        raise ArchiveRefused("the manifest has a malformed archive ID")
    return archive_id


def _parts(plain: bytes) -> dict[bytes, bytes]:
    """Return the values of a map, each still packed; nothing large is unpacked."""
    unpacker = msgpack.Unpacker(
        raw=True, max_buffer_size=len(plain) + 1, max_str_len=MAX_KEY, max_bin_len=MAX_KEY
    )
    unpacker.feed(plain)
    parts: dict[bytes, bytes] = {}
    for _ in range(min(unpacker.read_map_header(), MAX_KEYS)):
        key = unpacker.unpack()
        start = unpacker.tell()
        unpacker.skip()
        if type(key) is bytes:
            parts[key] = plain[start : unpacker.tell()]
    return parts


def _chunk_ids(packed: bytes) -> tuple[bytes, ...]:
    found = _ID_LIST.fullmatch(packed)
    if found is None:
        raise ArchiveRefused("the archive metadata has a malformed list of items")
    ids: tuple[bytes, ...] = unpack_strictly(packed)
    return ids


def check_metadata(plain: bytes, *, expected: str) -> dict[bytes, Any]:
    """Return the archive metadata a client wrote: known keys only, their shape checked.

    The client holds the key of its own authentication tag, so the tag proves nothing.
    Raises ArchiveRefused.
    """
    try:
        parts = _parts(plain)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise ArchiveRefused(f"the archive metadata does not parse: {type(error).__name__}") from (
            None
        )
    metadata: dict[bytes, Any] = {b"items": _chunk_ids(parts.get(b"items", b""))}
    for key in _KNOWN_KEYS:
        if key in parts:
            if len(parts[key]) > MAX_VALUE:
                raise ArchiveRefused("the archive metadata has an over-long value")
            metadata[key] = unpack_strictly(parts[key])
    if metadata.get(b"version") != 1 or metadata.get(b"name") != expected.encode():
        raise ArchiveRefused("the archive metadata is not that of the ordered archive")
    metadata.setdefault(b"time")
    metadata.setdefault(b"time_end", metadata[b"time"])
    for key in (b"time", b"time_end"):
        metadata[key] = _time(metadata[key])
    return metadata


def _time(value: Any) -> datetime:
    try:
        text = value.decode("ascii")
        if _TIME.match(text) is None:
            raise ValueError(text)
        moment = datetime.fromisoformat(text)
    except (AttributeError, ValueError):
        raise ArchiveRefused("the archive metadata has a malformed time") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def check_clock(metadata: dict[bytes, Any], *, began: datetime, now: datetime) -> None:
    """Refuse an archive whose time is far from ours: retention goes by it.

    ``began`` is when the session did. Raises ArchiveRefused of kind ``client-clock``.
    """
    start, end = metadata[b"time"], metadata[b"time_end"]
    if not began - MAX_CLOCK_ERROR <= start <= end <= now + MAX_CLOCK_ERROR:
        raise ArchiveRefused(
            f"its clock and ours differ: it says that the backup ran from "
            f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC, here it is "
            f"{now:%Y-%m-%d %H:%M}",
            kind="client-clock",
            keep=True,
        )


def _text(value: Any) -> str:
    if type(value) is not bytes or len(value) > _MAX_TEXT:
        raise ArchiveRefused("the archive metadata has a malformed text")
    return escaped(value.decode("utf-8", "replace"))


def _command_line(value: Any) -> tuple[str, ...]:
    if type(value) is not tuple or len(value) > 10_000:
        raise ArchiveRefused("the archive metadata has a malformed command line")
    return tuple(_text(part) for part in value)


def started_at(metadata: dict[bytes, Any]) -> datetime:
    """Return the start of the archive by the client's clock."""
    moment: datetime = metadata[b"time"]
    return moment


def _check_stream(ids: Sequence[bytes], reference_size: Callable[[bytes], int]) -> None:
    """Refuse a list of metadata chunks that is foreign, or too long to be read."""
    seen: set[bytes] = set()
    total = repeated = 0
    for chunk_id in ids:
        size = reference_size(chunk_id)
        total += size
        if chunk_id in seen:
            repeated += size
        seen.add(chunk_id)
        if total > MAX_STREAM_BYTES or repeated > MAX_REPEATED_BYTES:
            raise ArchiveRefused("the archive has more metadata than an archive may have")


def walk(
    ledger: Ledger,
    metadata: dict[bytes, Any],
    *,
    reference_size: Callable[[bytes], int],
    cache: FilesCacheWriter,
    catalog: Path,
    step: Callable[[], None],
    limits: ClientLimits | None = None,
    fresh: Callable[[bytes], bool],
    roots: Roots,
    ahead: Ahead | None = None,
) -> Walk:
    """Audit every item, without changing a reference count.

    ``reference_size`` refuses chunks the session may not use. ``step`` is called for each
    block and may raise to stop. ``fresh`` tells whether a chunk came with this backup;
    ``roots`` counts the files below each path of the plan. ``ahead`` has blocks that were
    judged by the same ``reference_size``, but without what came with this backup. Raises
    ArchiveRefused, or SessionStopped for more items than the client may have.
    """
    found = Walk()
    most = (limits.items if limits is not None else 0) or MAX_ITEMS
    judge = Judge(path_hash_of(ledger), reference_size, fresh=fresh, roots=roots)
    reader = ItemReader()
    refer = found.references.add
    out = zstandard.open(catalog, "wb")

    def take(block: Block) -> None:
        found.add(block)
        if limits is not None and found.items > most:
            raise limits.too_many_items()
        for chunk_id, size in block.references:
            refer(chunk_id, 1, size, 0)
        cache.add(block.records)
        roots.count(block.roots)
        out.write(b"".join(block.names))
        step()
        if found.items > MAX_ITEMS or found.chunks > MAX_REFERENCES:
            raise ArchiveRefused("the archive has more items than an archive may have")

    try:
        _check_stream(metadata[b"items"], reference_size)
        for chunk_id in metadata[b"items"]:
            refer(chunk_id, 1, reference_size(chunk_id), 0)
            known = ahead.find(chunk_id, reader) if ahead is not None else None
            if known is not None and not any(fresh(one) for one, _ in known.references):
                take(known)
                found.ahead += known.items
                reader.skip_to(known.rest)
                continue
            for block in judge.blocks(reader.read(ledger.read(chunk_id))):
                take(block)
        reader.finish()
    finally:
        out.close()
    found.roots = roots.files()
    return found


def path_hash_of(ledger: Ledger) -> Callable[[bytes], bytes]:
    """Return the keyed hash by which Borg's files cache knows a path."""
    kind = "blake2b" if ledger.opened.blake2 else "hmac-sha256"
    hashed: Callable[[bytes], bytes] = id_hash_for(kind, ledger.key.id_key)
    return hashed


def check_references(ledger: Ledger, found: Walk) -> None:
    """Raise ArchiveRefused when a chunk went away since the audit; under the ledger's lock."""
    for chunk_id, _entry in found.references.iteritems():
        if ledger.lookup(chunk_id) is None:
            raise ArchiveRefused("a chunk was deleted while the backup ran")


def add_references(ledger: Ledger, found: Walk) -> None:
    """Count every reference of an audited archive, and what they come to.

    Runs under the ledger's lock, after :func:`check_references`.
    """
    for chunk_id, entry in found.references.iteritems():
        stored = ledger.add_reference(chunk_id, count=entry[0])
        found.stored_size += stored * entry[0]


def _chunker_params(value: Any) -> tuple[str | int, ...]:
    if type(value) is not tuple or len(value) > 8:
        raise ArchiveRefused("the archive metadata has malformed chunker parameters")
    return tuple(
        escaped(part.decode("ascii", "replace")) if type(part) is bytes else part
        for part in value
        if type(part) in (bytes, int)
    )


def real_metadata(metadata: dict[bytes, Any], *, name: str, comment: str) -> dict[str, Any]:
    """Return the metadata of the real archive, without the figures of its content.

    Control characters in the client's words are escaped: plain borg shows them as they are.
    Raises ArchiveRefused.
    """

    def in_borgs_form(moment: datetime) -> str:
        return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")

    return {
        "version": 1,
        "name": name,
        "items": metadata[b"items"],
        "cmdline": _command_line(metadata.get(b"cmdline", ())),
        "hostname": _text(metadata.get(b"hostname", b"")),
        "username": _text(metadata.get(b"username", b"")),
        "time": in_borgs_form(metadata[b"time"]),
        "time_end": in_borgs_form(metadata[b"time_end"]),
        "comment": comment,
        "chunker_params": _chunker_params(metadata.get(b"chunker_params", ())),
    }
