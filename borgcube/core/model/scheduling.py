"""What the store keeps about time: schedules, tasks, pauses, triggers, and the timetable.

The timetable is the durable state of the daemon's scheduler: one :class:`Entry` for each
plan or task with a schedule, in the order of when it is to be looked at, so that finding
what is due costs as much as there is to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from BTrees.OOBTree import OOBTree, OOTreeSet
from persistent import Persistent

from borgcube.core.model.records import Record

PLAN, TASK = "plan", "task"
# What has another way onto a schedule, or none.
NOT_FOR_TASKS = {
    "backup": "Give the plan a schedule: borgcube plan set PLAN --schedule NAME",
    "restore": "Start it yourself: borgcube restore",
    "archive-mend": "Archives are named one by one: borgcube archive mend",
    "archive-delete": "Archives are named one by one: borgcube archive delete",
    "dry-run": "Start it yourself: borgcube plan dry-run PLAN",
    "catalog": "It is read when somebody looks at the files of an archive.",
}


class Schedule(Record):
    """When something runs; ``kind`` is that of a plugin. ``core.windows`` says how windows
    and blackouts are written, ``core.schedules`` what ``catch_up`` may be."""

    name: str = ""
    kind: str = "calendar"
    spec: str = ""
    zone: str = "UTC"
    windows: tuple[str, ...] = ()
    blackouts: tuple[str, ...] = ()
    jitter_s: int = 0
    stagger: bool = False
    catch_up: str = "once"
    grace_s: int = 3600
    comment: str = ""


class Task(Record):
    """Maintenance on a schedule: a job type with what it works on and its parameters."""

    name: str = ""
    type: str = ""
    repository: str = ""
    client: str = ""
    plan: str = ""
    parameters: dict[str, Any] = {}
    schedule: str = ""
    comment: str = ""


class Pause(Record):
    """Nothing of ``scope`` (everything, client, plan, repository, task) and ``target`` starts
    by schedule before ``until``; empty is until somebody resumes it."""

    scope: str = ""
    target: str = ""
    until: str = ""
    reason: str = ""
    by: str = ""


TRIGGER_USES = 12  # an hour


class Trigger(Record):
    """A secret address that starts one plan; only the digest of its token is kept."""

    PRIVATE = frozenset({"digest"})
    name: str = ""
    plan: str = ""
    digest: str = ""
    hint: str = ""
    expires_at: str = ""
    last_used_at: str = ""
    uses: int = 0


class Entry(Record):
    """Where one plan or task is in its schedule.

    ``due`` is the instant its next run is for, ``at`` the time (seconds since 1970) at which
    it is looked at next, 0 for not at all. ``held`` says why a run that is due waits, and
    ``held_since`` since when. ``since`` is when it got its schedule; before ``excused`` nothing
    was expected of it, because of a pause or because the server was off. ``patience_s`` is how
    old its newest archive may get: the longest time between two runs, how long one takes, and
    the grace.
    """

    key: str = ""
    subject: str = ""
    name: str = ""
    schedule: str = ""
    due: str = ""
    start: str = ""
    at: int = 0
    since: str = ""
    held: str = ""
    held_since: str = ""
    excused: str = ""
    tries: int = 0
    last_due: str = ""
    last_job: str = ""
    missed: int = 0
    patience_s: int = 0
    durations: tuple[float, ...] = ()


class Timetable(Persistent):  # type: ignore[misc]  # persistent has no types
    """Entries by key (``plan:web1``), by schedule, and in order of time."""

    def __init__(self) -> None:
        super().__init__()
        self.entries = OOBTree()
        self.order = OOTreeSet()
        self.users = OOBTree()

    def get(self, subject: str, name: str) -> Entry | None:
        """Return the entry of a plan or task, or None."""
        found: Entry | None = self.entries.get(f"{subject}:{name}")
        return found

    def enter(self, subject: str, name: str, schedule: str, *, since: str) -> Entry:
        """Make an entry, or give the one that exists another schedule; it has no time yet."""
        key = f"{subject}:{name}"
        entry: Entry | None = self.entries.get(key)
        if entry is None:
            entry = Entry(id=key, key=key, subject=subject, name=name)
            self.entries[key] = entry
        elif entry.schedule != schedule:
            self._leave(entry)
        if entry.schedule != schedule:
            entry.schedule, entry.since = schedule, since
            entry.due = entry.start = entry.held = entry.held_since = entry.last_due = ""
            entry.excused = ""
            entry.tries = entry.missed = 0
            if schedule not in self.users:
                self.users[schedule] = OOTreeSet()
            self.users[schedule].insert(key)
            self.move(entry, 0)
        return entry

    def remove(self, subject: str, name: str) -> None:
        """Forget a plan or task; nothing happens when it is not here."""
        entry = self.get(subject, name)
        if entry is not None:
            self.move(entry, 0)
            self._leave(entry)
            del self.entries[entry.key]

    def _leave(self, entry: Entry) -> None:
        keys = self.users.get(entry.schedule)
        if keys is not None and entry.key in keys:
            keys.remove(entry.key)
            if not keys:
                del self.users[entry.schedule]

    def move(self, entry: Entry, at: int) -> None:
        """Have an entry looked at at a time (seconds since 1970); 0 is never."""
        if entry.at == at:
            return
        if entry.at:
            self.order.remove((entry.at, entry.key))
        if at:
            self.order.insert((at, entry.key))
        entry.at = at

    def due(self, now: int, limit: int) -> list[Entry]:
        """Return up to ``limit`` entries whose time has come, the earliest first."""
        found = []
        for _, key in self.order.keys(None, (now + 1,), excludemax=True):
            found.append(self.entries[key])
            if len(found) == limit:
                break
        return found

    def first_at(self) -> int:
        """Return the earliest time at which there is something to do; 0 when there is none."""
        return int(self.order.minKey()[0]) if self.order else 0

    def count_using(self, schedule: str) -> int:
        """Return how many plans and tasks have a schedule."""
        return len(self.users.get(schedule, ()))

    def using(self, schedule: str) -> Iterator[Entry]:
        """Yield the entries of a schedule; safe against changes."""
        for key in list(self.users.get(schedule, ())):
            yield self.entries[key]
