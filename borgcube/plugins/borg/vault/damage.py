"""Which archives and files damaged chunks belong to.

Walks the lists of files of all archives once, in bounded memory, and keeps the answer with
the state of the verification until either the damage or the archives change. Only reads.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from borgcube.core import checks
from borgcube.core.errors import JobFailed
from borgcube.core.untrusted import words
from borgcube.plugins.borg.vault.items import ArchiveRefused, item_kind, read_items
from borgcube.plugins.borg.vault.ledger import Ledger

if TYPE_CHECKING:
    from borgcube.plugins.borg.vault.main import Vault
    from borgcube.plugins.borg.vault.verified import State

log = logging.getLogger("borgcube.vault")
REPORT_EVERY_S = 0.5


def files_of(
    ledger: Ledger, archive_id: bytes, bad: frozenset[bytes], step: Callable[[int], None]
) -> dict[str, Any] | None:
    """Return ``files`` (the first ones), ``count`` and ``unreadable`` of one archive, or None
    when nothing of it is damaged. ``step`` is called with the number of items seen."""
    files: list[str] = []
    count = items = 0
    unreadable = archive_id in bad
    damaged_masters: set[bytes] = set()  # first names of hard links, of damaged files only
    try:
        ledger.require_sound(archive_id)
        metadata = ledger.archive_metadata(archive_id)
        for item in read_items(_readable(ledger, metadata[b"items"])):
            items += 1
            if items % 500 == 0:
                step(items)
            chunks = item.get(b"chunks") or ()
            hit = any(entry[0] in bad for entry in chunks)
            if hit and item.get(b"hardlink_master"):
                damaged_masters.add(item[b"path"])
            elif not chunks and item_kind(item.get(b"mode", 0)) == "-":
                hit = item.get(b"source") in damaged_masters
            if hit:
                count += 1
                if len(files) < checks.MAX_FILES:
                    files.append(words(item[b"path"].decode("utf-8", "replace")))
    except (JobFailed, ArchiveRefused) as error:
        with ledger.lock:
            if not ledger.has_archive(archive_id):
                return None  # deleted meanwhile
        log.warning("the archive %s cannot be read: %s", archive_id.hex()[:16], error)
        unreadable = True
    if not count and not unreadable:
        return None
    return {"files": files, "count": count, "unreadable": unreadable}


def _readable(ledger: Ledger, ids: Any) -> Iterator[bytes]:
    for chunk_id in ids:
        yield ledger.read(chunk_id)


def account_for(vault: Vault, state: State, report: Callable[..., None]) -> dict[str, Any]:
    """Return what a check job reports as ``damage``; see ``core.checks.clean_damage``."""
    if not state.damaged:
        state.affected = {}
        return {}
    ledger = vault.ledger
    with ledger.lock:
        infos = [(info.name, info.id) for info in ledger.manifest.archives.list(sort_by=["ts"])]
    digest = hashlib.sha256("".join(sorted(state.damaged)).encode())
    for _, archive_id in infos:
        digest.update(archive_id)
    if state.affected.get("of") != digest.hexdigest():
        bad = frozenset(bytes.fromhex(key) for key in state.damaged)
        archives: dict[str, Any] = {}
        affected = 0
        last = time.monotonic()

        def step(items: int) -> None:
            nonlocal last
            vault.check_alive()
            if time.monotonic() - last > REPORT_EVERY_S:
                last = time.monotonic()
                report(looking_for_files=items, archives_affected=affected)

        # The newest first: those are the ones that people restore.
        for name, archive_id in reversed(infos):
            found = files_of(ledger, archive_id, bad, step)
            step(0)
            if found is not None:
                affected += 1
                if len(archives) < checks.MAX_ARCHIVES:
                    archives[name] = found
        state.affected = {
            "of": digest.hexdigest(), "archives": archives, "archives_count": affected
        }  # fmt: skip
    return {
        "chunks": len(state.damaged),
        "ids": sorted(state.damaged)[: checks.MAX_IDS],
        "archives": state.affected["archives"],
        "archives_count": state.affected["archives_count"],
        "found_at": min(str(one["at"]) for one in state.damaged.values()),
        "heals": sum(bool(one.get("heals")) for one in state.damaged.values()),
    }
