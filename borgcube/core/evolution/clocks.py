"""core:0009: archives get the server's time of their job, and their place in time from it.

Until then their order was that of the clients' clocks. Where the job is not known any more, and
for archives of plain borg, Borg's ``time`` is all there is, and they stay where they are.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

from BTrees.LOBTree import LOBTree
from BTrees.OOBTree import OOBTree

from borgcube.core import standing

# Records that are changed are kept in memory until so many have come together.
BATCH = 10_000


def _microseconds(moment: str) -> int:
    found = datetime.fromisoformat(moment)
    aware = found if found.tzinfo else found.replace(tzinfo=UTC)
    return int(aware.timestamp() * 1_000_000)


def _rest(root: MutableMapping[str, Any]) -> None:
    """Let changed records out of memory, where the store can."""
    connection = getattr(root, "_p_jar", None)
    if connection is not None:
        connection.transaction_manager.savepoint(optimistic=True)
        connection.cacheGC()


def _places(root: MutableMapping[str, Any]) -> list[tuple[int, int]]:
    """Give archives the time of their job; return for each where it belongs, and its number."""
    archives, jobs = root["archives"], root["jobs"]
    found: list[tuple[int, int]] = []
    for count, number in enumerate(list(archives.rows), start=1):
        archive = archives.rows[number]
        job = jobs.find("id", archive.job) if archive.job else None
        if job is not None and job.started_at and not archive.begun_at:
            archive.begun_at = job.started_at
        found.append((_microseconds(archive.begun_at) if archive.begun_at else number, number))
        if count % BATCH == 0:
            _rest(root)
    return sorted(found)


def order_archives(root: MutableMapping[str, Any]) -> None:
    """Apply the step; again does no harm."""
    for name in ("clocks", "unread"):
        if name not in root:
            root[name] = OOBTree()
    archives = root["archives"]
    rows, moved, last = LOBTree(), {}, 0
    for place, number in _places(root):
        last = max(place, last + 1)
        rows[last] = archives.rows[number]
        if last != number:
            moved[number] = last
    if not moved:
        return
    archives.rows, archives.last = rows, last
    archives.rebuild(archives.fields, counted=archives.counted, words=archives.words)
    for key, number in list(root["trash"].items()):
        root["trash"][key] = moved.get(number, number)
    for storage in root["fleet"].repositories.values():
        for key, number in list(storage.archives.items()):
            storage.archives[key] = moved.get(number, number)
    tables = SimpleNamespace(plans=root["plans"], jobs=root["jobs"], archives=archives,
                             fleet=root["fleet"], timetable=root["timetable"])  # fmt: skip
    for plan in root["plans"].rows.values():
        standing.refresh(cast(Any, tables), plan.name)
