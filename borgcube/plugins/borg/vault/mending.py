"""Rewrite an archive in quarantine from what is sound of it.

What the reader process can read in one way, and our rules allow, is encoded anew as in an
admission; items that fail are left out and named. The new archive takes the old one's name, and
the old one goes as every archive in quarantine does: by counting all others.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from borg.hashindex import CacheSynchronizer, ChunkIndex

from borgcube.core.errors import JobFailed, Problem
from borgcube.core.untrusted import escaped, words
from borgcube.plugins.borg.metadata.encode import ItemEncoder, ItemStream, WrongSize
from borgcube.plugins.borg.metadata.form import BadBlock, read_block
from borgcube.plugins.borg.metadata.rules import ArchiveRefused, Links, check_record
from borgcube.plugins.borg.vault.counts import recount, settle
from borgcube.plugins.borg.vault.domains import Domain
from borgcube.plugins.borg.vault.opened import figures_of
from borgcube.plugins.borg.vault.owner import KEY, owner_metadata, owner_of

if TYPE_CHECKING:
    from borgcube.plugins.borg.vault.main import Vault

log = logging.getLogger("borgcube.vault")
SUFFIX = ".mended"
MAX_NAMED = 20
_TEXTS = (b"hostname", b"username", b"comment")


class _Mending:
    """One archive's items, encoded anew into a spool."""

    def __init__(self, vault: Vault) -> None:
        self.vault, self.ledger = vault, vault.ledger
        self.spool = tempfile.TemporaryFile(dir=vault.state_dir)  # noqa: SIM115
        self.places: list[tuple[int, int]] = []
        self.references: Any = ChunkIndex()
        self.left_out: list[str] = []
        self.items = self.files = self.size = self.skipped = 0
        self._synchronizer = CacheSynchronizer(self.references)
        self._stream = ItemStream(self.ledger.key, self._write)
        self._encoder, self._links = ItemEncoder(), Links()

    def _write(self, chunk: bytes) -> bytes:
        self._synchronizer.feed(chunk)
        self.places.append((self.spool.tell(), len(chunk)))
        self.spool.write(chunk)
        chunk_id: bytes = self.ledger.key.id_hash(chunk)
        return chunk_id

    def _lookup(self, chunk_id: bytes) -> tuple[int, int]:
        found = self.ledger.lookup(chunk_id)
        if found is None:
            raise ArchiveRefused("a chunk of it is missing")
        return found

    def take(self, data: bytes) -> None:
        """Encode the items of a block that keep the rules."""
        for record in read_block(data):
            try:
                kind = check_record(record, self._links)
                packed, _ = self._encoder.encode(record, self._lookup)
            except (ArchiveRefused, WrongSize) as error:
                self._encoder.reset()
                self.skipped += 1
                if len(self.left_out) < MAX_NAMED:
                    name = words(record.path.decode("utf-8", "replace"), limit=200)
                    why = str(error) or "it has the wrong size"
                    self.left_out.append(f"{name}: {why}")
                continue
            self._stream.add_encoded(packed)
            self.items += 1
            self.files += kind == "-"
            self.size += record.size

    def finish(self) -> None:
        """Write the last chunk."""
        self._stream.finish()

    def chunks(self) -> Iterator[bytes]:
        """Yield the metadata chunks, in order."""
        for start, length in self.places:
            self.spool.seek(start)
            yield self.spool.read(length)


def mend(vault: Vault, name: str, report: Callable[..., None]) -> dict[str, Any]:
    """Rewrite the archive ``name``; return its ``id``, ``items``, ``left_out`` (how many),
    ``names`` (the first ones of those, with the reasons) and ``facts`` for its record.

    Raises JobFailed when there is no such archive, when it is not in quarantine, or when its list
    of files cannot be read at all.
    """
    ledger = vault.ledger
    if not vault.maintenance.acquire(blocking=False):
        raise JobFailed(
            "repository-busy", Problem.REPOSITORY, "The repository is being pruned or compacted.",
            next_step="Mend the archive when that is over.",
        )  # fmt: skip
    try:
        settle(vault, report)
        with ledger.lock:
            info = ledger.manifest.archives.get(name)
        if info is None:
            raise JobFailed("archive-missing", Problem.REPOSITORY,
                            f"There is no archive {name} in the repository.",
                            next_step="See: borgcube archive list")  # fmt: skip
        if not vault.known.reason(info.id):
            raise JobFailed("archive-sound", Problem.CONFIGURATION,
                            f"The archive {name} is not in quarantine.",
                            next_step="There is nothing to mend.")  # fmt: skip
        return _mend(vault, name, info.id, report)
    finally:
        vault.maintenance.release()


def _mend(
    vault: Vault, name: str, archive_id: bytes, report: Callable[..., None]
) -> dict[str, Any]:
    ledger = vault.ledger
    reader = vault.readers.open()
    work = _Mending(vault)
    try:
        ids = reader.stored(ledger.read(archive_id))
        for data in reader.salvage(ledger.read(chunk_id) for chunk_id in ids):
            vault.check_alive()
            work.take(data)
            report(items=work.items)
        work.finish()
        skipped, names = reader.left_out
        new_id = _add(vault, name, archive_id, work)
    except (ArchiveRefused, BadBlock, ValueError) as error:
        raise JobFailed(
            "archive-not-mended", Problem.REPOSITORY,
            f"The archive {name} cannot be rewritten: {words(str(error))}.",
            next_step="Delete it, or leave it in quarantine: it harms nothing there.",
        ) from error  # fmt: skip
    finally:
        reader.close()
        work.spool.close()
    try:
        recount(vault, report, without=name, instead=name + SUFFIX)
    except BaseException:
        if vault.broken is None:
            _take_back(vault, name + SUFFIX, new_id)
        raise
    vault.known.forget(archive_id)
    facts = figures_of(ledger.archive_metadata(new_id))
    with ledger.lock:
        facts |= {"start": ledger.manifest.archives[name].ts.isoformat()}
        present = {info.id.hex(): info.name for info in ledger.manifest.archives.list()}
        for domain in Domain.every(vault.state_dir / "domains"):
            vault.derive(partial(domain.reconcile, present))
    return {
        "id": new_id.hex(), "name": name, "was": archive_id.hex(), "items": work.items,
        "facts": facts, "left_out": work.skipped + skipped,
        "names": [*names, *work.left_out][:MAX_NAMED],
    }  # fmt: skip


def _take_back(vault: Vault, name: str, new_id: bytes) -> None:
    """Delete the new archive again: the old one could not be taken out, or nobody waits."""
    ledger = vault.ledger
    with ledger.lock:
        if name not in ledger.manifest.archives:
            return
        ledger.begin()
        try:
            ledger.remove_archive(name)
            vault.commit(finishing=None)
        except Exception as error:
            # The counts in memory may be half changed: only a fresh start is safe.
            vault.fail(error)
            raise
        vault.known.forget(new_id)


def _add(vault: Vault, name: str, archive_id: bytes, work: _Mending) -> bytes:
    """Commit the new archive, under a name of its own for now."""
    ledger = vault.ledger
    metadata = _metadata(ledger.archive_metadata(archive_id), name)
    with ledger.lock:
        vault.check_alive()
        ledger.begin()
        with vault.changing():
            if name + SUFFIX in ledger.manifest.archives:  # of an attempt that was cut short
                ledger.remove_archive(name + SUFFIX)
            stored = 0
            for chunk_id, entry in work.references.iteritems():
                stored += ledger.add_reference(chunk_id, count=entry[0]) * entry[0]
            metadata["items"] = tuple(ledger.add_metadata(chunk) for chunk in work.chunks())
            metadata |= {"size": work.size, "csize": stored, "nfiles": work.files}
            time = str(metadata["time"])
            new_id = ledger.add_archive(name + SUFFIX, metadata, time=time)
            vault.commit(finishing=None)
    return new_id


def _metadata(old: dict[bytes, Any], name: str) -> dict[str, Any]:
    """Return an archive's own metadata anew, of the values that have the right types."""

    def text(value: Any) -> str:
        return escaped(value.decode("utf-8", "replace")) if type(value) is bytes else ""

    def moment(value: Any) -> str:
        made = text(value)
        return made if made[:4].isdigit() and len(made) < 40 else "1970-01-01T00:00:00.000000"

    line = old.get(b"cmdline")
    params = old.get(b"chunker_params")
    made: dict[str, Any] = {
        "version": 1, "name": name, "time": moment(old.get(b"time")),
        "time_end": moment(old.get(b"time_end", old.get(b"time"))),
        "cmdline": tuple(map(text, line)) if type(line) is tuple else (),
        "chunker_params": tuple(
            text(one) if type(one) is bytes else one for one in params if type(one) in (bytes, int)
        ) if type(params) is tuple else ("buzhash", 19, 23, 21, 4095),
    }  # fmt: skip
    owner = owner_of(old)
    if len(owner) == len(owner_metadata(client="", plan="", job="", began="")[KEY]) - 1:
        made |= owner_metadata(**owner)
    return made | {key.decode(): text(old.get(key)) for key in _TEXTS}
