"""Walk the lists of files of archives: is every chunk that they use there?

A slice of a check, like those of ``verification.py``, which calls it. Reads through the ledger;
takes its lock only to look chunks up.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from borgcube.core.errors import ARCHIVE_QUARANTINED, JobFailed
from borgcube.plugins.borg.vault.items import ArchiveRefused, read_items
from borgcube.plugins.borg.vault.verified import (
    DAY_S,
    Order,
    Pace,
    Report,
    State,
    epoch_text,
    now_text,
    share_due,
)

if TYPE_CHECKING:
    from borgcube.plugins.borg.vault.main import Vault

log = logging.getLogger("borgcube.vault")
LEAST_SLICE_ARCHIVES = 10
REPORT_EVERY_S = 0.5


class ArchivesSlice:
    """One slice over the lists of files: is every chunk that an archive uses there?"""

    def __init__(self, vault: Vault, state: State, order: Order, report: Report) -> None:
        self.vault, self.state, self.order, self._report = vault, state, order, report
        self.ledger = vault.ledger
        self._pace = Pace(order, vault.check_alive)
        self.archives = self.items = self.references = 0
        self._reported = time.monotonic()

    def run(self) -> None:
        """Walk what is due, or all there is, until the budget is used up."""
        state = self.state
        began = int(time.time())
        present = self._present()
        state.archives = {k: v for k, v in state.archives.items() if k in present}
        queue = sorted(present, key=lambda key: (state.archives.get(key, 0), present[key]))
        last = state.slices.get("archives", 0)
        gap_days = (began - last) / DAY_S if last else 1.0
        share = share_due(len(queue), days=self.order.days, since_last_days=gap_days)
        target = max(share, LEAST_SLICE_ARCHIVES)
        state.slices["archives"] = began
        for key in queue:
            never = key not in state.archives
            if not (self.order.full or never or self.archives < target):
                break
            # One that cannot be read is tried again by every slice.
            if self._archive(bytes.fromhex(key)):
                state.archives[key] = int(time.time())
            else:
                state.archives.pop(key, None)
            self.archives += 1
            if self._pace.over:
                break

    def _present(self) -> dict[str, str]:
        with self.ledger.lock:
            return {info.id.hex(): info.name for info in self.ledger.manifest.archives.list()}

    def _archive(self, archive_id: bytes) -> bool:
        """Walk one archive; False when its list of files cannot be read to its end.

        One that is deleted meanwhile is not damaged: what looks missing is noted only while
        the archive is there.
        """
        ledger = self.ledger
        try:
            ledger.require_sound(archive_id)
            metadata = ledger.archive_metadata(archive_id)
        except JobFailed as error:
            known = self.vault.known
            if error.cause.kind == ARCHIVE_QUARANTINED and archive_id in known.unreadable():
                self._find_lost(archive_id)
                return False
            if error.cause.kind == ARCHIVE_QUARANTINED:
                return True  # it is told as such; its list of files is not read here
            self._lost(archive_id, archive_id)
            return False

        def readable() -> Iterator[bytes]:
            for chunk_id in metadata[b"items"]:
                try:
                    plain = ledger.read(chunk_id)
                except JobFailed:
                    self._lost(chunk_id, archive_id)
                    raise
                self._pace.took(len(plain))
                yield plain

        try:
            for item in read_items(readable()):
                self.items += 1
                ids = [entry[0] for entry in item.get(b"chunks") or ()]
                self.references += len(ids)
                with ledger.lock:
                    index = ledger.index
                    lost = [chunk_id for chunk_id in ids if chunk_id not in index]
                    if lost and not ledger.has_archive(archive_id):
                        return False
                for chunk_id in lost:
                    self.state.note(chunk_id, "it is missing")
                if time.monotonic() - self._reported > REPORT_EVERY_S:
                    self._reported = time.monotonic()
                    self._report(files=self.items, archives=self.archives,
                                 damaged=len(self.state.damaged))  # fmt: skip
        except JobFailed as error:
            self.vault.check_alive()
            log.warning("archive %s: %s", archive_id.hex()[:16], error)
            return False
        except ArchiveRefused as error:
            log.warning("archive %s: %s", archive_id.hex()[:16], error)
            self.state.note(archive_id, f"its list of files cannot be read: {error}")
            return False
        return True

    def _find_lost(self, archive_id: bytes) -> None:
        """Note what cannot be read of a list of files that nobody looked through."""
        try:
            ids = self.ledger.archive_metadata(archive_id)[b"items"]
        except (JobFailed, KeyError):
            self._lost(archive_id, archive_id)
            return
        for chunk_id in ids:
            try:
                self._pace.took(len(self.ledger.read(chunk_id)))
            except JobFailed:
                self._lost(chunk_id, archive_id)

    def _lost(self, chunk_id: bytes, archive_id: bytes) -> None:
        with self.ledger.lock:
            if not self.ledger.has_archive(archive_id):
                return
            there = chunk_id in self.ledger.index
        self.state.note(chunk_id, "it cannot be read" if there else "it is missing", heals=there)

    def facts(self) -> dict[str, Any]:
        """Return what is verified now, in figures."""
        present = self._present()
        times = [when for key, when in self.state.archives.items() if key in present]
        return {
            "kind": "archives", "at": now_text(),
            "oldest_at": epoch_text(min(times)) if times else "",
            "archives_total": len(present), "archives_verified": len(times),
            "slice_archives": self.archives, "slice_items": self.items,
            "slice_references": self.references, "seconds": round(self._pace.spent, 2),
            "damaged": len(self.state.damaged),
        }  # fmt: skip
