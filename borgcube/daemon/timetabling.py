"""Entries of the timetable: made, given their next time, taken out.

Control methods call :func:`enrol` and :func:`withdraw` in the transaction that changes a
plan or task, so that a schedule and its place in time are never apart. The scheduler calls
the rest. No clock is read here.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from borgcube.core import standing
from borgcube.core.errors import BorgCubeError, InvalidInput, NotFound
from borgcube.core.model import Entry
from borgcube.core.model.scheduling import PLAN, TASK
from borgcube.core.planning import instant, rule_named
from borgcube.core.schedules import Rule, predicted_s, staggered
from borgcube.core.store import Root

# A clock that is set back by less than this does not repeat what was run already.
CLOCK_TRUST = timedelta(hours=25)
STEP = timedelta(minutes=5)
# Spreading uses at most this part of the time until the next run.
SPREAD_PART = 0.5


def stamp(moment: datetime) -> str:
    """Return an instant as the store keeps it."""
    return moment.isoformat(timespec="seconds")


def seconds(moment: datetime) -> int:
    """Return seconds since 1970, rounded up, so that nothing is looked at too early."""
    whole = int(moment.timestamp())
    return whole + (moment.microsecond > 0)


def check_schedule(root: Root, name: str) -> None:
    """Raise NotFound (field ``schedule``) for a schedule that there is not."""
    if name and root.schedules.find("name", name) is None:
        raise NotFound(f"There is no schedule {name!r}.", field="schedule",
                       next_step="See: borgcube schedule list")  # fmt: skip


def enrol(
    root: Root, kinds: Mapping[str, Any], *, subject: str, name: str, schedule: str, now: datetime
) -> None:
    """Give a plan or task a place in the timetable by its schedule; none for an empty one."""
    check_schedule(root, schedule)
    if not schedule:
        withdraw(root, subject=subject, name=name)
        return
    entry = root.timetable.enter(subject, name, schedule, since=stamp(now))
    rule = rule_named(root, kinds, schedule)
    if not entry.at and rule is not None:
        set_next(root, kinds, entry, now)
        set_patience(root, entry, rule, _gap_s(rule, now.date()), now)


@functools.lru_cache(maxsize=256)
def _gap_s(rule: Rule, day: date) -> int:
    """Return the longest time between two runs; many entries share a schedule."""
    return rule.longest_gap_s(datetime.combine(day, time(), UTC))


def set_patience(root: Root, entry: Entry, rule: Rule, gap_s: int, now: datetime) -> None:
    """Set how old the newest archive of an entry may get, and judge its plan by that."""
    spare = rule.grace_s + rule.jitter_s + predicted_s(entry.durations)
    entry.patience_s = int(gap_s + spare)
    if entry.subject == PLAN and root.fleet.status(entry.name) is not None:
        standing.refresh(root, entry.name, now=now)


def withdraw(root: Root, *, subject: str, name: str) -> None:
    """Take a plan or task out of the timetable."""
    known = root.timetable.get(subject, name) is not None
    root.timetable.remove(subject, name)
    if known and subject == PLAN:
        standing.refresh(root, name)


def set_next(
    root: Root, kinds: Mapping[str, Any], entry: Entry, now: datetime, *,
    spread: Mapping[str, int] | None = None,
) -> None:  # fmt: skip
    """Set the next due time of an entry to the first after ``now``, or after its last one if
    the clock was set back behind that; ``spread`` are offsets of :func:`offsets`."""
    rule = rule_named(root, kinds, entry.schedule)
    entry.held = entry.held_since = ""
    entry.tries = 0
    base = now
    last = instant(entry.last_due)
    if last is not None and now < last <= now + CLOCK_TRUST:
        base = last
    due = rule.next_after(base) if rule else None
    if rule is None or due is None:
        entry.due = entry.start = ""
        root.timetable.move(entry, 0)
        return
    start = due + timedelta(seconds=offset_of(rule, entry, due, spread or {}))
    entry.due, entry.start = stamp(due), stamp(start)
    root.timetable.move(entry, seconds(start))


def offset_of(rule: Rule, entry: Entry, due: datetime, spread: Mapping[str, int]) -> int:
    """Return how many seconds after ``due`` an entry starts: jitter and staggering, kept
    within the window and well before the next run."""
    wanted = rule.offset_s(entry.key) + spread.get(entry.key, 0)
    if not wanted:
        return 0
    following = rule.next_after(due)
    most = (following - due).total_seconds() * SPREAD_PART if following else 86_400.0
    room = open_for_s(rule, due, most)
    return wanted if wanted < room else int(wanted % max(1.0, room))


def open_for_s(rule: Rule, due: datetime, most: float) -> float:
    """Return for how many seconds from ``due`` starting is allowed, at most ``most``."""
    if not rule.windows.allowed and not rule.windows.closed:
        return most
    moment = due
    while (moment - due).total_seconds() < most and rule.windows.is_open(moment):
        moment += STEP
    return min(most, (moment - due).total_seconds())


def offsets(root: Root, schedule: str, *, lanes: int) -> dict[str, int]:
    """Return the staggering of all entries of a schedule by how long each will take."""
    durations = {e.key: predicted_s(e.durations) for e in root.timetable.using(schedule)}
    return staggered(durations, lanes=lanes)


def reschedule(root: Root, kinds: Mapping[str, Any], schedule: str, now: datetime) -> None:
    """Give all entries of a changed schedule their next times."""
    rule = rule_named(root, kinds, schedule)
    gap_s = _gap_s(rule, now.date()) if rule else 0
    for entry in root.timetable.using(schedule):
        entry.since = stamp(now)
        entry.last_due = ""
        set_next(root, kinds, entry, now)
        if rule is not None:
            set_patience(root, entry, rule, gap_s, now)


def refuse_in_use(root: Root, schedule: str) -> None:
    """Raise InvalidInput while a plan or task has a schedule."""
    for entry in root.timetable.using(schedule):
        raise InvalidInput(
            f"The {entry.subject} {entry.name} uses the schedule {schedule}.",
            next_step=f"Give it another one first: borgcube {entry.subject} set {entry.name}"
            " --schedule NAME",
        )


def recheck(root: Root, kinds: Mapping[str, Any], key: str, now: datetime) -> None:
    """Make one entry agree with its plan or task, its schedule and the clock.

    A run that is overdue stays due. One that is to come gets the time its schedule gives now,
    whatever the clock or the zone said when it was set.
    """
    subject, _, name = key.partition(":")
    table = root.plans if subject == PLAN else root.tasks
    record = table.find("name", name)
    wanted = str(record.schedule) if record is not None else ""
    if not wanted or root.schedules.find("name", wanted) is None:
        withdraw(root, subject=subject, name=name)
        return
    entry = root.timetable.enter(subject, name, wanted, since=stamp(now))
    due = instant(entry.due)
    if entry.held or (due is not None and due <= now):
        root.timetable.move(entry, min(entry.at, seconds(now)) or seconds(now))
        return
    try:
        rule = rule_named(root, kinds, wanted)
        base = instant(entry.last_due)
        after = base if base is not None and now < base <= now + CLOCK_TRUST else now
        if rule is None or due is None or rule.next_after(after) != due:
            set_next(root, kinds, entry, now)
        if rule is not None and not entry.patience_s:
            set_patience(root, entry, rule, _gap_s(rule, now.date()), now)
    except BorgCubeError:
        root.timetable.move(entry, seconds(now))  # the scheduler says what is wrong with it


def keys_to_check(root: Root) -> list[str]:
    """Return the keys of all entries, and of plans and tasks that have a schedule and none."""
    found = set(root.timetable.entries.keys())
    for schedule in filter(None, root.plans.values("schedule")):
        found.update(f"{PLAN}:{plan.name}" for plan in root.plans.oldest("schedule", schedule))
    found.update(f"{TASK}:{task.name}" for task in root.tasks.rows.values() if task.schedule)
    return sorted(found)
