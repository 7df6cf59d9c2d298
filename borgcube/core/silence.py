"""When a plan should have spoken: the moment by which it should have a newer archive.

Reads one state of the store. A plan with a schedule is expected as ``core.planning`` says; this
is the same rule for a whole fleet at once, with what many plans share read only once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from borgcube.core.errors import BorgCubeError
from borgcube.core.model.scheduling import PLAN
from borgcube.core.planning import Pauses, instant, last_success, offset_s, rule_named
from borgcube.core.schedules import Rule, deadline, predicted_s
from borgcube.core.store import Root

# Every deadline is reckoned anew after this time, whatever the journal says.
ANEW_AFTER = timedelta(hours=1)
MAX_TOLD = 1000
# A look at everything rests now and then, for the threads that serve pages, and gives back
# the memory of what it read.
REST_AFTER, REST_S = 100, 0.02


def moment(text: str) -> datetime | None:
    """Return the aware time of an ISO string, or None when there is none."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


class Expectations:
    """What is expected of plans at one time. ``kinds`` are the kinds of schedules; a plan
    without a schedule should have an archive every ``days`` days, 0 expects nothing."""

    def __init__(self, root: Root, kinds: Mapping[str, Any], now: datetime, *, days: int) -> None:
        self._root, self._kinds, self._now, self._days = root, kinds, now, days
        self._pauses = Pauses.at(root, now)
        self._rules: dict[str, Rule | None] = {}

    def pauses_end(self) -> list[datetime]:
        """Return when the pauses in force end, those without an end left out."""
        ends = (instant(pause.until) for pause in self._pauses.by_target.values())
        return [end for end in ends if end is not None]

    def last_archive_at(self, plan: str) -> datetime | None:
        """Return when a plan's newest archive was begun, or None when it has none."""
        status = self._root.fleet.status(plan)
        if status is not None and not status.archive:
            return None
        return last_success(self._root, plan)

    def due_by(self, plan: Any) -> datetime | None:
        """Return the moment by which a plan should have a newer archive than it has; it is
        past when the plan is silent. None when nothing is expected of it."""
        pause = self._pauses.of(plan=plan.name, client=plan.client, repository=plan.repository)
        held = None
        if pause is not None:
            held = instant(pause.until)
            if held is None:
                return None
        entry = self._root.timetable.get(PLAN, plan.name) if plan.schedule else None
        rule = self._rule(plan.schedule) if entry is not None else None
        if rule is None or entry is None:
            return self._without_schedule(plan, held)
        since, last = instant(entry.since) or self._now, self.last_archive_at(plan.name)
        return deadline(
            rule, last=since if last is None or last < since else last, offset_s=offset_s(entry),
            duration_s=predicted_s(entry.durations), held_until=held or instant(entry.excused),
        )  # fmt: skip

    def _without_schedule(self, plan: Any, held: datetime | None) -> datetime | None:
        since = self.last_archive_at(plan.name) or moment(plan.created_at)
        if self._days <= 0 or since is None:
            return None
        due = since + timedelta(days=self._days)
        return max(due, held) if held is not None else due

    def _rule(self, name: str) -> Rule | None:
        """Return a schedule's rule; None for one that cannot be read, whose plans are then
        expected as if they had none: silence must not follow from a broken schedule."""
        if name not in self._rules:
            try:
                self._rules[name] = rule_named(self._root, self._kinds, name)
            except BorgCubeError:
                self._rules[name] = None
        return self._rules[name]


class Deadlines:
    """The deadlines of all plans, remembered from look to look.

    What moves one nearer is told by an event (of its plan, of a schedule, of a pause), or is
    the end of a pause. What moves it away is found when the remembered one is over. Not safe
    for several threads.
    """

    def __init__(self) -> None:
        self._due: dict[str, datetime | None] = {}
        self._seq = 0
        self._anew_at: datetime | None = None

    def late(self, root: Root, expected: Expectations, now: datetime) -> dict[str, datetime]:
        """Return the plans whose deadline is over, with it, as ``root`` has it now."""
        touched = self._touched(root, now)
        if touched is None:
            self._due = dict(self._everything(root, expected))
            self._anew_at = min([now + ANEW_AFTER, *expected.pauses_end()])
        else:
            over = [name for name, due in self._due.items() if due is not None and due < now]
            for name in {*touched, *over}:
                plan = root.plans.find("name", name)
                if plan is None:
                    self._due.pop(name, None)
                else:
                    self._due[name] = expected.due_by(plan)
        self._seq = root.journal.last
        return {name: due for name, due in self._due.items() if due is not None and due < now}

    def _touched(self, root: Root, now: datetime) -> set[str] | None:
        """Return the plans that events told of since the last look, None for all of them."""
        journal = root.journal
        if self._anew_at is None or not now < self._anew_at <= now + ANEW_AFTER:
            return None
        if journal.first > self._seq + 1 or journal.last - self._seq > MAX_TOLD:
            return None
        found = set()
        for envelope in journal.since(self._seq, MAX_TOLD):
            kind, data = envelope["type"].partition(".")[0], envelope["data"]
            if kind == "pause" and data.get("scope") == PLAN:
                found.add(data.get("target"))
            elif data.get("plan"):
                found.add(data["plan"])
            elif kind in ("pause", "schedule"):
                return None
        return found

    @staticmethod
    def _everything(root: Root, expected: Expectations) -> Iterator[tuple[str, datetime | None]]:
        for count, plan in enumerate(root.plans.rows.values(), start=1):
            yield plan.name, expected.due_by(plan)
            if count % REST_AFTER == 0:
                root.plans._p_jar.cacheGC()
                time.sleep(REST_S)
