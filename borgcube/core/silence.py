"""When a plan should have spoken: the moment by which it should have a newer archive.

Reads one state of the store. A plan with a schedule is expected as ``core.planning`` says; this
is the same rule for a whole fleet at once, with what many plans share read only once.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from borgcube.core.errors import BorgCubeError
from borgcube.core.model.scheduling import PLAN
from borgcube.core.planning import Pauses, instant, last_success, offset_s, rule_named
from borgcube.core.schedules import Rule, deadline, predicted_s
from borgcube.core.store import Root


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
