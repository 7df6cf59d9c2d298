"""Are the reference counts those of the archives? Set them right where they are not.

The counts in Borg's cache are what deletion goes by. Those that 0.1.0 made may rest on metadata
that Borg reads in another way, so before a repository is pruned, deleted from or compacted for the
first time, every archive is looked through (``known.py``) and all references are counted anew, by
Borg's own reader. The same counting takes an archive in quarantine out: its own metadata is never
asked how many references it had.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from borg.hashindex import CacheSynchronizer, ChunkIndex

from borgcube.core.errors import ARCHIVE_QUARANTINED, JobFailed
from borgcube.plugins.borg.metadata.rules import ArchiveRefused

if TYPE_CHECKING:
    from borgcube.plugins.borg.vault.main import Vault

log = logging.getLogger("borgcube.vault")
Report = Callable[..., None]
# A binary of 32 bytes in msgpack, wherever it is (github.com/msgpack/msgpack, spec.md).
_REFERENCE = re.compile(rb"(?=(?:\xc4\x20|\xda\x00\x20)(.{32}))", re.DOTALL)
ATTEMPTS = 3  # without the lock, before it is counted with it


def settle(vault: Vault, report: Report) -> int:
    """Look through every archive that is not known, then count once; return how many counts
    were wrong. Goes on where an earlier one ended; backups go on meanwhile.

    ``report`` is called with figures, and ends the work by raising.
    """
    known = vault.known
    unknown = known.unknown()
    for number, (archive_id, name) in enumerate(unknown.items()):
        vault.check_alive()
        report(archives_looked_at=number, archives_to_look_at=len(unknown))
        try:
            known.require(archive_id, name)
        except JobFailed as error:
            if error.cause.kind == ARCHIVE_QUARANTINED:
                continue  # noted
            if error.cause.kind != "repository-damaged":
                raise
            log.warning("%s", error)
    if known.counted or vault.ledger.repository.append_only:
        return 0
    wrong = recount(vault, report)
    known.note_counted()
    return wrong


class Counting:
    """All references of a repository's archives, as Borg counts them."""

    def __init__(self, vault: Vault) -> None:
        self._vault, self._ledger = vault, vault.ledger
        self.counts: Any = ChunkIndex()
        self.archives: set[bytes] = set()
        self.whole = True  # False when an archive cannot be read: then nothing is taken off

    def add(self, archive_id: bytes) -> None:
        """Count the references of one archive."""
        found = self._references(archive_id)
        if found is not None:
            self.counts.merge(found)
        self.counts.add(archive_id, 1, 0, 0)
        self.archives.add(archive_id)

    def _references(self, archive_id: bytes) -> Any:
        ledger, known = self._ledger, self._vault.known
        try:
            known.require(archive_id)
            return ledger.references(archive_id)
        except JobFailed as error:
            if error.cause.kind != ARCHIVE_QUARANTINED:
                self.whole = False
                return None
        # In quarantine: what Borg's reader sees counts, so that a cache made anew agrees.
        found = ChunkIndex()
        counter = CacheSynchronizer(found)
        reader = self._vault.readers.open()
        ids: tuple[bytes, ...] = ()
        try:
            ids = reader.stored(ledger.read(archive_id))
            for chunk_id in ids:
                counter.feed(ledger.read(chunk_id))
        except (ValueError, ArchiveRefused, JobFailed) as error:
            log.warning("archive %s cannot be counted: %s", archive_id.hex()[:16], error)
            self.whole = False
            return self._mentioned(ids)
        finally:
            reader.close()
        for chunk_id in ids:
            found.add(chunk_id, 1, 0, 0)
        return found

    def _mentioned(self, ids: tuple[bytes, ...]) -> Any:
        """Count once whatever looks like a reference in the readable part of a list of files:
        what is left of a damaged archive is not deleted with its neighbours."""
        found, ledger = ChunkIndex(), self._ledger
        for items_id in ids:
            try:
                plain = ledger.read(items_id)
            except JobFailed:
                continue
            found.add(items_id, 1, len(plain), 0)
            for match in _REFERENCE.finditer(plain):
                held = ledger.lookup(match[1])
                if held is not None and match[1] not in found:
                    found.add(match[1], 1, held[0], held[1])
        return found

    def present(self) -> set[bytes]:
        """Return the archives that there are now; under the lock."""
        return {info.id for info in self._ledger.manifest.archives.list()}


def recount(vault: Vault, report: Report, *, without: str = "", instead: str = "") -> int:
    """Count all references anew and set right what differs, in one commit; return how much did.

    ``without`` is the name of an archive that goes away with it, ``instead`` that of one that
    takes its name.
    """
    ledger = vault.ledger
    counting = Counting(vault)
    for _ in range(ATTEMPTS):
        with ledger.lock:
            wanted = _wanted(vault, without)
        if not counting.archives <= wanted:
            counting = Counting(vault)  # one that was counted is gone
        for number, archive_id in enumerate(sorted(wanted - counting.archives)):
            vault.check_alive()
            report(archives_counted=number, archives_to_count=len(wanted))
            counting.add(archive_id)
    with ledger.lock:
        vault.check_alive()
        wanted = _wanted(vault, without)
        if not counting.archives <= wanted:
            counting = Counting(vault)
        for archive_id in wanted - counting.archives:
            counting.add(archive_id)
        wrong = 0

        def change() -> None:
            nonlocal wrong
            archives = ledger.manifest.archives
            if without in archives:
                del archives[without]
            if instead:
                archives[without] = (archives[instead].id, archives[instead].ts)
                del archives[instead]
            wrong = ledger.set_counts(
                counting.counts, whole=counting.whole,
                needed=lambda chunk_id: vault.sessions.rely_on(chunk_id, but=None),
            )  # fmt: skip

        vault.commit(finishing=None, before=change)
    if wrong:
        log.warning("%d reference counts were not those of the archives and are right now", wrong)
    return wrong


def _wanted(vault: Vault, without: str) -> set[bytes]:
    archives = vault.ledger.manifest.archives
    found = {info.id for info in archives.list()}
    if without and without in archives:
        found.discard(archives[without].id)
    return found
