"""References and commits: the one place that changes what the repository holds.

Whatever changes something runs under :attr:`Ledger.lock`. Borg's cache (reference counts)
is changed in step with the repository and committed right after it; a crash in between makes
Borg resynchronise, never miscount.
"""

from __future__ import annotations

import errno
import logging
import shutil
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack
from borg.hashindex import CacheSynchronizer, ChunkIndex
from borg.helpers import IntegrityError, Manifest
from borg.repository import Repository

from borgcube.core.errors import ARCHIVE_QUARANTINED, JobFailed, Problem
from borgcube.plugins.borg.gate.verify import Rejected, decompress
from borgcube.plugins.borg.metadata.decode import check_bulk
from borgcube.plugins.borg.metadata.rules import ArchiveRefused
from borgcube.plugins.borg.metadata.stream import unpack_strictly
from borgcube.plugins.borg.vault.causes import home_writes
from borgcube.plugins.borg.vault.items import read_items
from borgcube.plugins.borg.vault.opened import OpenedRepository

if TYPE_CHECKING:
    from borgcube.plugins.borg.vault.known import Known

log = logging.getLogger("borgcube.vault")
PARTIAL_GROUP = 10_000
PARTIAL_SUFFIX = ".partial"
PARTIAL_COMMENT = "chunks of an unfinished backup"
ENTRY_BYTES = 41  # of a segment, beside the envelope: CRC, size, tag, ID


class Source:
    """An opened repository whose chunks can be read, with the lock that guards it."""

    def __init__(self, opened: OpenedRepository) -> None:
        self.opened = opened
        self.repository = opened.repository
        self.key = opened.key
        self.manifest = opened.manifest
        self.lock = threading.RLock()
        self.sealer = opened.sealer

    def read(self, chunk_id: bytes) -> bytes:
        """Return a chunk's plaintext, authenticated, bounded and with its ID checked.

        Raises JobFailed ``repository-damaged``: whatever is stored was sound once.
        """
        with self.reading(chunk_id):
            with self.lock:
                envelope = self.repository.get(chunk_id)
            plain = decompress(self.sealer.unseal(envelope))
            self.key.assert_id(chunk_id, plain)
        return plain

    @contextmanager
    def reading(self, chunk_id: bytes) -> Iterator[None]:
        """Turn what damage of a stored chunk raises into JobFailed ``repository-damaged``."""
        try:
            yield
        except (
            ValueError, Rejected, IntegrityError, Repository.ObjectNotFound, OSError
        ) as error:  # fmt: skip
            # A file of the repository that is gone, or that the disk does not read any more.
            if isinstance(error, OSError) and error.errno not in (errno.ENOENT, errno.EIO):
                raise
            raise JobFailed(
                "repository-damaged",
                Problem.REPOSITORY,
                f"Chunk {chunk_id.hex()[:16]} of the repository cannot be read.",
                next_step="Check its storage, then run borg check.",
            ) from error


def metadata_of(source: Source, archive_id: bytes) -> dict[bytes, Any]:
    """Return the unpacked metadata of an archive.

    Raises JobFailed when it is larger than any borg makes it: it may be another's.
    """
    plain = source.read(archive_id)
    try:
        check_bulk(plain)
        data = unpack_strictly(plain)
        if type(data) is not dict:
            raise ArchiveRefused("the archive metadata is not a mapping")
    except ArchiveRefused as error:
        raise JobFailed(
            "archive-damaged", Problem.REPOSITORY,
            f"The archive {archive_id.hex()[:16]} cannot be read: {error}.",
            next_step="Delete it with plain borg, or run borg check on the repository.",
        ) from error  # fmt: skip
    return data


class Ledger(Source):
    """An opened repository with chunk lookup, references and grouped commits."""

    def __init__(self, opened: OpenedRepository) -> None:
        super().__init__(opened)
        self.cache = opened.cache
        self.chunks = opened.cache.chunks
        # Which archives may be read here; without it, as in a test, all of them.
        self.known: Known | None = None
        self._added: list[bytes] = []
        # Chunks stored since the last commit and not yet referenced: id -> (0, size, csize).
        self.fresh = ChunkIndex()
        # Chunks that no archive counted as stored anew yet: id -> (number of the session that
        # stored it, size, csize). Partial archives count nothing.
        self.uncounted = ChunkIndex()

    @property
    def index(self) -> Any:
        """Return the repository's index, chunk ID -> (segment, offset); under the lock."""
        repository = self.repository
        if repository.index is None:
            # As Repository.get does: a commit or the opening leaves it to whoever needs it.
            repository.index = repository.open_index(repository.get_transaction_id())
        return repository.index

    def lookup(self, chunk_id: bytes) -> tuple[int, int] | None:
        """Return (size, stored size) of a chunk the repository holds, or None."""
        # Asked without the lock too: a commit moves it from the one to the other meanwhile.
        entry = self.chunks.get(chunk_id) or self.fresh.get(chunk_id) or self.chunks.get(chunk_id)
        return (entry[1], entry[2]) if entry is not None else None

    def store(self, chunk_id: bytes, size: int, envelope: bytes, *, by: int = 0) -> None:
        """Put a sealed chunk; it has no reference yet. Raises OSError when the disk is full.

        ``by`` is the number of the session that uploaded it, 0 for what the vault made.
        """
        self.repository.put(chunk_id, envelope, wait=False)
        self.fresh[chunk_id] = (1, size, len(envelope))
        if chunk_id not in self.chunks:
            self.uncounted[chunk_id] = (by, size, len(envelope))

    def forget_fresh(self, chunk_id: bytes) -> None:
        """Take back a chunk nothing references and nobody relies on."""
        if chunk_id in self.fresh and chunk_id not in self.chunks:
            self.repository.delete(chunk_id)
            del self.fresh[chunk_id]
            self._never_count(chunk_id)

    # What was stored anew ---------------------------------------------------------------

    def _never_count(self, chunk_id: bytes) -> None:
        if chunk_id in self.uncounted:
            del self.uncounted[chunk_id]

    def count_again(self, attempts: Any) -> None:
        """Let what unfinished backups stored count for an archive to come, in a vault that did
        not see them: chunks with the references of ``attempts`` and no other."""
        for chunk_id, entry in attempts.iteritems():
            held = self.chunks.get(chunk_id)
            if held is not None and held[0] == entry[0] and chunk_id not in self.uncounted:
                self.uncounted[chunk_id] = (0, held[1], held[2])

    def count_stored(
        self, references: Any, archive_id: bytes, *, by: int, runs: Callable[[int], bool]
    ) -> int:
        """Return the bytes that count as stored anew for an archive, each chunk once only.

        What session ``by`` stored counts, whatever else refers to it meanwhile; so does what
        nobody will count any more: its session is over, by ``runs``. Runs after the commit,
        which took the references of partial archives off.
        """
        mine = [archive_id] if archive_id in self.uncounted else []
        open_sessions: dict[int, bool] = {by: False, 0: False}

        def counts(number: int) -> bool:
            if number not in open_sessions:
                open_sessions[number] = runs(number)
            return not open_sessions[number]

        # Over the shorter of the two: a large archive may bring little, and the reverse.
        if len(self.uncounted) < len(references):
            mine += [key for key, entry in self.uncounted.iteritems()
                     if key in references and counts(entry[0])]  # fmt: skip
        else:
            for key, _ in references.iteritems():
                entry = self.uncounted.get(key)
                if entry is not None and counts(entry[0]):
                    mine.append(key)
        total = 0
        for key in mine:
            total += int(self.uncounted[key][2])
            del self.uncounted[key]
        return total

    # Reading ----------------------------------------------------------------------------

    def begin(self) -> None:
        """Open the cache's transaction, once per commit."""
        if not self.cache.txn_active:
            with home_writes():
                # A begin that failed before, on a full disk, leaves its directory behind.
                shutil.rmtree(Path(self.cache.path) / "txn.tmp", ignore_errors=True)
                self.cache.begin_txn()

    def add_reference(self, chunk_id: bytes, *, count: int = 1) -> int:
        """Count references to a stored chunk; return its stored size."""
        _, size, csize = self.chunks.get(chunk_id) or self.fresh[chunk_id]
        self.chunks.add(chunk_id, count, size, csize)
        return int(csize)

    def drop_reference(self, chunk_id: bytes, *, count: int = 1) -> None:
        """Count references less and delete the chunk with the last one.

        Raises JobFailed ``repository-damaged`` for more references than there are.
        """
        held, size, csize = self.chunks.get(chunk_id) or (0, 0, 0)
        if held < count:
            raise JobFailed(
                "repository-damaged",
                Problem.REPOSITORY,
                "The repository lacks a chunk that an archive references.",
                next_step="Stop BorgCube and run borg check on the repository.",
            )
        if held == ChunkIndex.MAX_VALUE:
            return  # Borg stops counting there: such a chunk stays
        if held > count:
            self.chunks[chunk_id] = (held - count, size, csize)
        else:
            del self.chunks[chunk_id]
            self.repository.delete(chunk_id)
            self._never_count(chunk_id)

    def add_metadata(self, plain: bytes) -> bytes:
        """Store one of our own metadata chunks with a reference; return its ID."""
        chunk_id: bytes = self.key.id_hash(plain)
        if self.lookup(chunk_id) is None:
            self.store(chunk_id, len(plain), self.key.encrypt(plain))
        self.add_reference(chunk_id)
        return chunk_id

    def has_archive(self, archive_id: bytes) -> bool:
        """Tell whether an archive is in the manifest; under the lock."""
        return any(info.id == archive_id for info in self.manifest.archives.list())

    def archive_metadata(self, archive_id: bytes) -> dict[bytes, Any]:
        """Return the unpacked metadata of a committed archive; see :func:`metadata_of`."""
        return metadata_of(self, archive_id)

    def require_sound(self, archive_id: bytes) -> None:
        """Raise JobFailed unless an archive is ours or was looked through; see ``known.py``."""
        if self.known is not None:
            self.known.require(archive_id)

    def items(self, archive_id: bytes) -> Iterator[dict[bytes, Any]]:
        """Yield the items of an archive. Raises JobFailed for one in quarantine."""
        self.require_sound(archive_id)
        metadata = self.archive_metadata(archive_id)
        return read_items(self.read(chunk_id) for chunk_id in metadata[b"items"])

    def add_archive(self, name: str, metadata: dict[str, Any], *, time: str) -> bytes:
        """Authenticate ``metadata`` under the real key and list it in the manifest."""
        packed = self.key.pack_and_authenticate_metadata(metadata, context=b"archive")
        archive_id = self.add_metadata(packed)
        self.manifest.archives[name] = (archive_id, time)
        self._added.append(archive_id)
        return archive_id

    def references(self, archive_id: bytes) -> Any:
        """Return a ChunkIndex of the chunks an archive references: (count, size, any).

        Its own object is not among them. Counted by the very code with which Borg makes its
        cache from archives: what ``chunks`` lists, not ``chunks_healthy``, which names what a
        repair found to be lost. Takes the lock only to read, so that backups go on. Raises
        JobFailed for an archive in quarantine.
        """
        if archive_id not in self._added:
            self.require_sound(archive_id)
        found = ChunkIndex()
        metadata = self.archive_metadata(archive_id)
        counter = CacheSynchronizer(found)
        for chunk_id in metadata[b"items"]:
            counter.feed(self.read(chunk_id))
        for chunk_id in metadata[b"items"]:
            size, _ = self.lookup(chunk_id) or (0, 0)
            found.add(chunk_id, 1, size, 0)
        return found

    def check_readable(self, name: str) -> None:
        """Raise JobFailed when an archive's own metadata is damaged."""
        try:
            self.references(self.manifest.archives[name].id)
        except JobFailed as error:
            if error.cause.kind == ARCHIVE_QUARANTINED:
                raise
            raise self._damaged(name, error) from error
        except Exception as error:
            raise self._damaged(name, error) from error

    @staticmethod
    def _damaged(name: str, error: Exception) -> JobFailed:
        return JobFailed(
            "archive-damaged",
            Problem.REPOSITORY,
            f"The archive {name} cannot be read: {error}.",
            next_step="Stop BorgCube and run borg check --repair on the repository.",
        )

    def remove_archive(self, name: str) -> Any:
        """Take an archive out of the manifest, drop every reference it made, return them.

        Everything is read before anything is changed.
        """
        archive_id = self.manifest.archives[name].id
        references = self.references(archive_id)
        for chunk_id, entry in references.iteritems():
            self.drop_reference(chunk_id, count=entry[0])
        self.drop_reference(archive_id)
        del self.manifest.archives[name]
        return references

    def drop_references(self, references: Any) -> int:
        """Take all counts of a ChunkIndex off at once; return the bytes of what went.

        Raises JobFailed ``repository-damaged``, before anything is changed, for a chunk that
        has fewer references than are to be taken.
        """
        chunks, delete = self.chunks, self.repository.delete_known
        for chunk_id, entry in references.iteritems():
            held = chunks.get(chunk_id)
            if held is None or held[0] < entry[0]:
                raise JobFailed(
                    "repository-damaged",
                    Problem.REPOSITORY,
                    "The repository lacks a chunk that an archive references.",
                    next_step="Stop BorgCube and run borg check on the repository.",
                )
        freed = 0
        for chunk_id, entry in references.iteritems():
            held, size, csize = chunks[chunk_id]
            if held == ChunkIndex.MAX_VALUE:
                continue  # Borg stops counting there: such a chunk stays
            if held > entry[0]:
                chunks[chunk_id] = (held - entry[0], size, csize)
            else:
                del chunks[chunk_id]
                delete(chunk_id, csize + ENTRY_BYTES)
                self._never_count(chunk_id)
                freed += csize + ENTRY_BYTES
        return freed

    def set_counts(self, counts: Any, *, whole: bool, needed: Callable[[bytes], bool]) -> int:
        """Make the reference counts those of ``counts``, a ChunkIndex; return how many differed.

        What nothing references is deleted if ``counts`` is ``whole``, but for what is ``needed``
        by somebody who has not referenced it yet.
        """
        chunks, index = self.chunks, self.index
        wrong = 0
        for chunk_id, entry in counts.iteritems():
            held = chunks.get(chunk_id)
            if held is not None and held[0] != entry[0] and (whole or entry[0] > held[0]):
                chunks[chunk_id] = (entry[0], held[1], held[2])
                wrong += 1
            elif held is None and chunk_id in index:
                stored = len(self.repository.get(chunk_id))
                chunks[chunk_id] = (entry[0], entry[1], stored)
                wrong += 1
        if not whole:
            return wrong
        for chunk_id in [key for key, _ in chunks.iteritems() if key not in counts]:
            _, size, csize = chunks[chunk_id]
            del chunks[chunk_id]
            wrong += 1
            if chunk_id in index and needed(chunk_id):
                self.fresh[chunk_id] = (1, size, csize)
        # Of an archive in quarantine there may be chunks that nothing ever counted.
        used = (chunks, self.fresh)
        for chunk_id in [key for key, _ in index.iteritems() if not any(key in o for o in used)]:
            if chunk_id != Manifest.MANIFEST_ID:
                self.repository.delete(chunk_id)
                wrong += 1
        return wrong

    def write_partial(
        self, name: str, order: bytes | bytearray, owner: Mapping[str, Any] | None = None
    ) -> None:
        """Reference the chunks in ``order`` (32-byte IDs) by a real archive ``name``.

        ``owner`` is merged into its metadata; see ``owner.py``.

        Items of 10,000 chunks in the order of arrival, one metadata chunk each, so that
        the full ones deduplicate from commit to commit. Replaces one of the same name.
        """
        previous = name in self.manifest.archives
        old_id = self.manifest.archives[name].id if previous else b""
        now = datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
        ids, total, count = [], 0, len(order) // 32
        for number, start in enumerate(range(0, count, PARTIAL_GROUP)):
            entries = []
            for position in range(start, min(start + PARTIAL_GROUP, count)):
                chunk_id = bytes(order[position * 32 : position * 32 + 32])
                size, csize = self.lookup(chunk_id) or (0, 0)
                entries.append((chunk_id, size, csize))
                self.add_reference(chunk_id)
            size = sum(entry[1] for entry in entries)
            total += size
            item = {
                "path": f"partial/{number:06d}",
                "mode": 0o100600,
                "uid": 0,
                "gid": 0,
                "user": "root",
                "group": "root",
                "mtime": 0,
                "size": size,
                "chunks": entries,
            }
            ids.append(self.add_metadata(msgpack.packb(item, use_bin_type=False)))
        metadata = {
            "version": 1,
            "name": name,
            "items": tuple(ids),
            "cmdline": ("borgcube",),
            "hostname": "",
            "username": "",
            "time": now,
            "time_end": now,
            "comment": PARTIAL_COMMENT,
            "chunker_params": ("buzhash", 19, 23, 21, 4095),
            "size": total,
            "csize": total,
            "nfiles": len(ids),
            **(owner or {}),
        }
        if previous:
            # The new references stand already, so that nothing shared is deleted here.
            self.manifest.archives[name + ".old"] = (old_id, now)
            self.remove_archive(name + ".old")
        self.add_archive(name, metadata, time=now)

    def commit(self, *, compact: Collection[int] = ()) -> None:
        """Make everything durable: repository first, Borg's cache right after.

        ``compact`` are segments whose live objects move to new ones in the same commit.

        A cache that cannot be written is logged only: the archive is durable, the counts in
        memory are right, and the next commit or the next start of Borg writes it.
        """
        self.begin()
        self.manifest.write()
        if compact:
            self.repository.commit_and_compact(compact)
        else:
            self.repository.commit(compact=False)
        self.fresh.clear()
        if self.known is not None:
            for archive_id in self._added:
                self.known.note_sound(archive_id)
        self._added.clear()
        try:
            self.cache.commit()
        except OSError as error:
            log.error("Borg's cache could not be written, it is tried again: %s", error)
