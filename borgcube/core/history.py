"""What is over and old enough is dropped: jobs, events, entries of the audit trail.

A store that keeps everything grows without end. The daemon calls this in small steps, each
a short transaction. Never dropped: a job that has not ended, and the last backup of a plan,
which its page shows. Archives are none of this: they are what a retention policy keeps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from borgcube.core.standing import ENDED

if TYPE_CHECKING:
    from borgcube.core.model import Job, Record, Table
    from borgcube.core.store import Root

LOOKED_AT = 1000  # records passed over in one step


@dataclass(frozen=True)
class Old:
    """Jobs to drop, and the number to look on from; None when there is nothing more."""

    jobs: list[str] = field(default_factory=list)
    following: int | None = None


def _is_spare(root: Root, job: Job) -> bool:
    status = root.fleet.status(job.plan) if job.plan else None
    return job.state in ENDED and (status is None or status.last_job != job.id)


def old_jobs(root: Root, *, before: str, most: int, start: int = 0, limit: int = 100) -> Old:
    """Return up to ``limit`` jobs that ended before ``before`` (ISO 8601), or of which there
    are more than ``most``, the oldest first, from number ``start`` on."""
    found: list[str] = []
    too_many = root.jobs.size - most
    for looked_at, (number, job) in enumerate(root.jobs.rows.items(min=start)):
        if len(found) == limit or looked_at == LOOKED_AT:
            return Old(found, number)
        if len(found) >= too_many and not (job.finished_at or job.created_at) < before:
            return Old(found)
        if _is_spare(root, job):
            found.append(job.id)
    return Old(found)


def drop_jobs(root: Root, jobs: list[str]) -> int:
    """Forget these jobs, unless that has become wrong; returns how many were forgotten."""
    dropped = 0
    for job_id in jobs:
        job = root.jobs.find("id", job_id)
        if job is not None and _is_spare(root, job):
            root.jobs.remove(job)
            dropped += 1
    return dropped


def drop_entries(table: Table, *, before: str, most: int, limit: int = 200) -> int:
    """Forget up to ``limit`` of the oldest records of a table that were made before
    ``before`` or of which there are more than ``most``; returns how many."""
    old: list[Record] = []
    for record in table.rows.values():
        if len(old) == limit or not (
            table.size - len(old) > most or record.created_at < before
        ):  # fmt: skip
            break
        old.append(record)
    for record in old:
        table.remove(record)
    return len(old)
