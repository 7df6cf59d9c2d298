"""What the store says about time: rules, next runs, pauses, and when an archive is expected.

Functions over a state of the store and the registry, which read and change nothing. The
daemon's scheduler and control methods call them, and so may notifiers and pages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from borgcube.core.errors import NotFound
from borgcube.core.localtime import zone_of
from borgcube.core.model import Entry, Pause, Plan, Schedule
from borgcube.core.model.scheduling import PLAN
from borgcube.core.schedules import Rule, deadline, predicted_s
from borgcube.core.store import Root
from borgcube.core.windows import Windows

EVERYTHING = "everything"
SCOPES = (EVERYTHING, "client", "plan", "repository", "task")
FOREVER = datetime(9999, 1, 1, tzinfo=UTC)


def instant(text: str) -> datetime | None:
    """Return the aware UTC time of an ISO string, or None for an empty one."""
    if not text:
        return None
    found = datetime.fromisoformat(text)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def rule_of(kinds: Mapping[str, Any], record: Schedule) -> Rule:
    """Return a stored schedule as a rule; raises NotFound when its plugin is missing, and
    InvalidInput for an unknown zone or a bad window."""
    kind = kinds.get(record.kind)
    if kind is None:
        raise NotFound(
            f"There is no kind of schedule {record.kind!r}.",
            next_step="See `borgcube plugins` for plugins in quarantine.",
        )
    windows = Windows.parse(zone_of(record.zone), record.windows, record.blackouts)
    return Rule(
        name=record.name, kind=kind, spec=record.spec, zone=record.zone, windows=windows,
        jitter_s=record.jitter_s, stagger=record.stagger, catch_up=record.catch_up,
        grace_s=record.grace_s,
    )  # fmt: skip


def rule_named(root: Root, kinds: Mapping[str, Any], name: str) -> Rule | None:
    """Return the rule of the schedule of that name, or None when there is none."""
    record = root.schedules.find("name", name) if name else None
    return None if record is None else rule_of(kinds, record)


@dataclass(frozen=True)
class Pauses:
    """The pauses in force at one time, ready to be asked for many things."""

    by_target: Mapping[tuple[str, str], Pause]

    @classmethod
    def at(cls, root: Root, now: datetime) -> Pauses:
        """Collect what is in force; where two are for one target, that which ends later."""
        found: dict[tuple[str, str], Pause] = {}
        for pause in root.pauses.newest(10_000):
            end = instant(pause.until) or FOREVER
            if end <= now:
                continue
            where = (pause.scope, pause.target)
            other = found.get(where)
            if other is None or (instant(other.until) or FOREVER) < end:
                found[where] = pause
        return cls(found)

    def of(self, **subject: str) -> Pause | None:
        """Return the pause that holds something longest; ``subject`` has ``client``, ``plan``,
        ``repository``, ``task`` as far as there are any."""
        wanted = [(EVERYTHING, ""), *((k, v) for k, v in subject.items() if v)]
        held = [self.by_target[where] for where in wanted if where in self.by_target]
        return max(held, key=lambda pause: instant(pause.until) or FOREVER, default=None)


def subject_of(root: Root, entry: Entry) -> dict[str, str]:
    """Return what an entry is about: client, plan, repository, task. Empty when it is gone."""
    if entry.subject == PLAN:
        plan = root.plans.find("name", entry.name)
        if plan is None:
            return {}
        return {"plan": plan.name, "client": plan.client, "repository": plan.repository}
    task = root.tasks.find("name", entry.name)
    if task is None:
        return {}
    return {"task": task.name, "client": task.client, "repository": task.repository,
            "plan": task.plan}  # fmt: skip


def last_success(root: Root, plan: str) -> datetime | None:
    """Return when a plan's newest archive was begun, by this server's clock as far as that is
    known, or None when it has none."""
    for archive in root.archives.newest(1, lambda one: not one.quarantine, plan=plan):
        return instant(archive.begun_at or archive.created_at or archive.start)
    return None


def offset_s(entry: Entry) -> int:
    """Return by how much spreading delays an entry's next run, in seconds."""
    due, start = instant(entry.due), instant(entry.start)
    return int((start - due).total_seconds()) if due and start else 0


def expected_by(root: Root, kinds: Mapping[str, Any], plan: Plan, now: datetime) -> datetime | None:
    """Return the instant by which a plan should have a newer archive than it has.

    It is past when the plan is late. None when nothing is expected: the plan has no schedule,
    or is paused without an end. Raises NotFound or InvalidInput when its schedule cannot be
    read. The schedule's grace is part of it, see ``core.schedules.deadline``.
    """
    rule = rule_named(root, kinds, plan.schedule)
    entry = root.timetable.get(PLAN, plan.name)
    if rule is None or entry is None:
        return None
    pause = Pauses.at(root, now).of(plan=plan.name, client=plan.client, repository=plan.repository)
    held = instant(entry.excused)
    if pause is not None:
        held = instant(pause.until)
        if held is None:
            return None
    since = instant(entry.since) or now
    last = last_success(root, plan.name)
    return deadline(
        rule, last=since if last is None or last < since else last, offset_s=offset_s(entry),
        duration_s=predicted_s(entry.durations), held_until=held,
    )  # fmt: skip


def next_runs(rule: Rule, entry: Entry | None, now: datetime, count: int) -> list[datetime]:
    """Return when the next runs will start, as far as is known now: the one that waits, then
    those after it, each where windows and blackouts let it."""
    shift = timedelta(seconds=offset_s(entry) if entry else 0)
    found: list[datetime] = []
    due = instant(entry.due) if entry is not None else None
    if due is None:
        due = rule.next_after(now)
    while due is not None and len(found) < count:
        start = max(due + shift, now)
        begin = rule.windows.next_open(start)
        if begin is None:
            break
        found.append(begin)
        # A run that had to wait stands for all that became due meanwhile.
        due = rule.next_after(max(due, begin) if begin > due + shift else due)
    return found
