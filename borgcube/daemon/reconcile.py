"""After a crash, or after somebody worked with plain borg: make the store agree with what is.

Two questions have answers outside the store: which jobs still have a worker (none, when the
daemon starts), and which archives a repository has. The daemon calls this when it starts
and whenever a vault was started; while a vault runs, nobody else can change its repository.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from borgcube.core import lifecycle, quarantine
from borgcube.core.model import Archive
from borgcube.core.store import Root, Store
from borgcube.daemon.archives import archive_from, archive_number

LOG = logging.getLogger(__name__)
KEPT_FIGURES = ("new_size", "charged_size")


def lose_jobs(store: Store) -> None:
    """Mark jobs without a worker as lost, and queue those again that have retries left."""
    with store.transact() as root:
        for state in lifecycle.ACTIVE:
            for job in root.jobs.oldest("state", state):
                cancelled = state == lifecycle.CANCELLING
                lifecycle.lose(root, job)
                if not cancelled:
                    lifecycle.requeue(root, job)


def known_archives(store: Store, repository: str) -> frozenset[str]:
    """Return the IDs of a repository's archives as the store has them."""
    with store.reading() as root:
        return frozenset(root.fleet.repository(repository).archives)


def take_stock(store: Store, repository: str, listed: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Record archives that the store does not know, and forget those that are gone. Returns
    the IDs of jobs that wait to make again what turned out to be there.

    ``listed`` is what the repository has. An archive that was made again under its old name
    (mended, repaired, or rewritten by plain borg) stays with its client and plan, and pinned.
    An entry's ``quarantined`` is why it is in quarantine, empty for one that is sound.
    """
    needless: list[str] = []
    with store.transact() as root:
        # By number: of most archives nothing but the ID is needed.
        known = dict(root.fleet.repository(repository).archives)
        present = {str(entry["id"]) for entry in listed}
        missing = [root.archives.rows[number] for key, number in known.items()
                   if key not in present]  # fmt: skip
        gone = {archive.name: archive for archive in missing}
        again = {str(entry["name"]): str(entry["id"]) for entry in listed
                 if entry["id"] not in known}  # fmt: skip
        for archive in gone.values():
            if archive.name in again:
                quarantine.end(root, archive, quarantine.MENDED, became=again[archive.name])
            LOG.warning("repository %s: archive %s is gone", repository, archive.name)
            lifecycle.remove_archive(root, archive)
        for entry in listed:
            if entry["id"] not in known:
                record_found(root, repository, entry, before=gone.get(str(entry["name"])))
                needless += _retries_of(root, str(entry.get("job") or ""))
        said = {str(entry["id"]): entry.get("quarantined") for entry in listed}
        quarantine.settle(
            root, repository, {key: why for key, why in said.items() if why},
            complete="" in said.values() and None not in said.values(),
        )  # fmt: skip
    return tuple(needless)


def _retries_of(root: Root, job_id: str) -> list[str]:
    """Return the jobs that wait to make a lost job's archive again."""
    lost = root.jobs.find("id", job_id) if job_id else None
    if lost is None or lost.state != lifecycle.LOST:
        return []
    waiting = [
        job
        for state in (lifecycle.QUEUED, lifecycle.STARTING)
        for job in root.jobs.oldest("state", state)
    ]
    return [job.id for job in waiting if job.retry_of == job_id]


def record_found(
    root: Root, repository: str, entry: dict[str, Any], *, before: Archive | None = None
) -> None:
    """Record an archive that was found in a repository; ``before`` is what it was made from."""
    facts = dict(entry)
    facts.pop("quarantined", None)
    owner = {name: str(facts.pop(name, "") or "") for name in ("client", "plan", "job")}
    if before is not None:
        owner = {"client": before.client, "plan": before.plan, "job": before.job}
    if root.clients.find("name", owner["client"]) is None:
        owner["client"] = ""
    made_by = root.jobs.find("id", owner["job"]) if owner["job"] else None
    begun_at = before.begun_at if before is not None else getattr(made_by, "started_at", "")
    archive = archive_from(facts, repository=repository, begun_at=begun_at, **owner)
    archive.created_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    if before is not None:
        archive.pinned, archive.pinned_at = before.pinned, before.pinned_at
        # What a client may store is counted by these; the data are the same.
        kept = {key: before.stats[key] for key in KEPT_FIGURES if key in before.stats}
        archive.stats = {**kept, **archive.stats}
    LOG.warning("repository %s: archive %s was found and is recorded", repository, archive.name)
    lifecycle.add_archive(root, archive, number=archive_number(archive.at))
