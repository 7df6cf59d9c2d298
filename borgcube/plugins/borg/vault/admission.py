"""Admit one archive: audit what the client wrote and make it a real archive, of our own bytes.

A single walk over the items checks every reference (only chunks advertised to the session
or uploaded by it), every size and every path, and yields the statistics, the next files cache
and the catalog of names. What the reader process decoded is encoded anew, as Borg writes it; that
is what is stored. Its references are counted twice, by us and by Borg's own reader over the bytes
that are stored, and the two must agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import zstandard
from borg.hashindex import CacheSynchronizer, ChunkIndex

from borgcube.core.untrusted import escaped
from borgcube.plugins.borg.gate.verify import id_hash_for
from borgcube.plugins.borg.metadata.compare import check_equal
from borgcube.plugins.borg.metadata.decode import ArchiveFacts
from borgcube.plugins.borg.metadata.encode import ItemStream
from borgcube.plugins.borg.metadata.readers import Reader
from borgcube.plugins.borg.metadata.rules import ArchiveRefused, Links
from borgcube.plugins.borg.vault.audit import MAX_WARNINGS, Ahead, Block, Figures, Judge
from borgcube.plugins.borg.vault.filescache import FilesCacheWriter
from borgcube.plugins.borg.vault.fresh import Roots
from borgcube.plugins.borg.vault.ledger import Ledger
from borgcube.plugins.borg.vault.limits import ClientLimits
from borgcube.plugins.borg.vault.streams import StoredStream, StreamWriter

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
    references: Any = field(default_factory=ChunkIndex)  # chunk ID -> (count, size, stored size)
    metadata: tuple[bytes, ...] = ()  # IDs of the chunks with its items, which we made
    warnings: list[str] = field(default_factory=list)  # paths that some file systems refuse


def check_clock(facts: ArchiveFacts, *, began: datetime, now: datetime) -> None:
    """Refuse an archive whose time is far from ours.

    ``began`` is when the session did. Raises ArchiveRefused of kind ``client-clock``.
    """
    start, end = facts.time, facts.time_end
    if not began - MAX_CLOCK_ERROR <= start <= end <= now + MAX_CLOCK_ERROR:
        raise ArchiveRefused(
            f"its clock and ours differ: it says that the backup ran from "
            f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC, here it is "
            f"{now:%Y-%m-%d %H:%M}",
            kind="client-clock",
            keep=True,
        )


def check_stream(ids: Sequence[bytes], size_of: Callable[[bytes], int]) -> None:
    """Refuse a list of metadata chunks that is foreign, or too long to be read."""
    seen: set[bytes] = set()
    total = repeated = 0
    for chunk_id in ids:
        size = size_of(chunk_id)
        total += size
        if chunk_id in seen:
            repeated += size
        seen.add(chunk_id)
        if total > MAX_STREAM_BYTES or repeated > MAX_REPEATED_BYTES:
            raise ArchiveRefused("the archive has more metadata than an archive may have")


class Outputs:
    """Where a walk puts what it finds: the next files cache, the catalog, the plan's stream."""

    def __init__(self, cache: FilesCacheWriter, catalog: Path, stream: StreamWriter) -> None:
        self.cache, self.stream = cache, stream
        self.catalog = catalog
        self._names = zstandard.open(catalog, "wb")

    def add(self, block: Block) -> None:
        """Write what a block has for them."""
        self.cache.add(block.records)
        self._names.write(b"".join(block.names))

    def close(self) -> None:
        """End the catalog; the others are committed by who owns them. Safe to repeat."""
        self._names.close()

    def discard(self) -> None:
        """Forget everything; safe to repeat."""
        self._names.close()
        self.cache.discard()
        self.stream.discard()
        self.catalog.unlink(missing_ok=True)


class Admission:
    """The walk over one archive, without changing a reference count.

    ``judge`` decides by the rules of the session; ``store`` keeps a metadata chunk of ours and
    tells its ID; ``step`` is called for each block and may raise to stop.
    """

    def __init__(
        self, ledger: Ledger, judge: Judge, reader: Reader, outputs: Outputs, *,
        store: Callable[[bytes], bytes], step: Callable[[], None],
        limits: ClientLimits | None, fresh: Callable[[bytes], bool], roots: Roots,
    ) -> None:  # fmt: skip
        self.ledger, self.judge, self.reader, self.outputs = ledger, judge, reader, outputs
        self._step, self._limits, self._fresh, self._roots = step, limits, fresh, roots
        self._most = (limits.items if limits is not None else 0) or MAX_ITEMS
        self.found = Walk()
        self._counted: Any = ChunkIndex()
        self._links = Links()
        self._synchronizer = CacheSynchronizer(self.found.references)
        self._store = store
        self._stream = ItemStream(ledger.key, self._write)

    def _write(self, chunk: bytes) -> bytes:
        self._synchronizer.feed(chunk)
        return self._store(chunk)

    def walk(self, ids: Sequence[bytes], earlier: StoredStream, ahead: Ahead | None) -> Walk:
        """Read the metadata chunks ``ids`` from the client's last stream or the repository.

        ``ahead`` has blocks that were judged by the same rules, but without what came with this
        backup. Raises ArchiveRefused, or SessionStopped for more items than the client may have.
        """
        found, reader, kept = self.found, self.reader, self.outputs.stream
        rest: bytes | None = b""
        current = True  # whether the reader has read what was before
        for chunk_id in ids:
            known = ahead.find(chunk_id, rest) if ahead is not None else None
            if known is not None and not self._anything_fresh(known):
                for block in known:
                    self._take(block)
                    found.ahead += block.items
                rest, current = known[-1].rest, False
                earlier.copy(chunk_id, kept)
                continue
            if not current:
                reader.begin(rest or b"")
                current = True
            chunk = earlier.get(chunk_id)
            if chunk is None:
                chunk = self.ledger.read(chunk_id)
            for data in reader.read(chunk):
                self._take(self.judge.judge(data))
            rest = reader.rest
            kept.add(chunk_id, chunk)
        if not current:
            reader.begin(rest or b"")
        reader.finish()
        return self._finish()

    def _anything_fresh(self, blocks: Sequence[Block]) -> bool:
        return any(self._fresh(one) for block in blocks for one in block.each_id())

    def _take(self, block: Block) -> None:
        found = self.found
        found.add(block)
        if self._limits is not None and found.items > self._most:
            raise self._limits.too_many_items()
        for first, path, kind in block.links:
            (self._links.add if first else self._links.check)(path, kind)
        count = self._counted.add
        for chunk_id in block.each_id():
            count(chunk_id, 1, 0, 0)
        for data in block.encoded:
            self._stream.add_encoded(data)
        self.outputs.add(block)
        self._roots.count(block.roots)
        found.warnings += block.warnings[: MAX_WARNINGS - len(found.warnings)]
        self._step()
        if found.items > MAX_ITEMS or found.chunks > MAX_REFERENCES:
            raise ArchiveRefused("the archive has more items than an archive may have")

    def _finish(self) -> Walk:
        found = self.found
        found.metadata = self._stream.finish()
        check_equal(self._counted, found.references, sizes=False)
        for chunk_id in found.metadata:
            found.references.add(chunk_id, 1, 0, 0)
        found.roots = self._roots.files()
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


def real_metadata(facts: ArchiveFacts, *, name: str, comment: str) -> dict[str, Any]:
    """Return the metadata of the real archive, without its items and the figures of its content.

    Control characters in the client's words are escaped: plain borg shows them as they are.
    """

    def in_borgs_form(moment: datetime) -> str:
        return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")

    def text(value: bytes) -> str:
        return escaped(value.decode("utf-8", "replace"))

    return {
        "version": 1,
        "name": name,
        "cmdline": tuple(text(word) for word in facts.cmdline),
        "hostname": text(facts.hostname),
        "username": text(facts.username),
        "time": in_borgs_form(facts.time),
        "time_end": in_borgs_form(facts.time_end),
        "comment": comment,
        "chunker_params": facts.chunker_params,
    }
