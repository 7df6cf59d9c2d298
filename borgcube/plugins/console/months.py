"""A month of past and planned runs, day by day, as a calendar shows it.

Past runs are the backups that ended, planned ones follow from the schedules. Days are those
of the server's clock in UTC. What is looked at is bounded: a large fleet's month says that
it has more.
"""

from __future__ import annotations

import calendar
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from borgcube.core import lifecycle
from borgcube.core.errors import BorgCubeError
from borgcube.core.listing import number_at
from borgcube.core.planning import rule_of
from borgcube.core.texts import _

MAX_PAST = 5000
MAX_DUE = 1000
ENDINGS = {lifecycle.DONE: "good", lifecycle.WARNING: "warn", lifecycle.FAILED: "bad",
           lifecycle.LOST: "bad"}  # fmt: skip
WEEKDAYS = (_("Mon"), _("Tue"), _("Wed"), _("Thu"), _("Fri"), _("Sat"), _("Sun"))


@dataclass
class Day:
    """A day of the month: backups that ended by how, and runs that are planned."""

    day: date
    inside: bool
    today: bool = False
    ended: Counter[str] = field(default_factory=Counter)
    planned: int = 0
    schedules: list[str] = field(default_factory=list)


@dataclass
class Month:
    """Weeks of days, and the months before and after, as ``2026-01``."""

    name: str
    before: str
    after: str
    weeks: list[list[Day]]
    more: bool = False


def _first(asked: str, now: datetime) -> date:
    try:
        found = datetime.strptime(asked, "%Y-%m").replace(tzinfo=UTC).date()
    except ValueError:
        found = now.date()
    if not 1971 <= found.year <= 9990:
        found = now.date()
    return found.replace(day=1)


def month(request: Any, asked: str) -> Month:
    """Return the month ``asked`` (``2026-01``), the present one when that is none."""
    now = datetime.now(UTC)
    first = _first(asked, now)
    weeks = [
        [Day(day, day.month == first.month, day == now.date()) for day in week]
        for week in calendar.Calendar().monthdatescalendar(first.year, first.month)
    ]
    days = {one.day: one for week in weeks for one in week}
    begin = datetime.combine(weeks[0][0].day, datetime.min.time(), UTC)
    end = datetime.combine(weeks[-1][-1].day, datetime.min.time(), UTC) + timedelta(days=1)
    found = Month(
        f"{first:%Y-%m}", f"{first - timedelta(days=1):%Y-%m}",
        f"{first + timedelta(days=31):%Y-%m}", weeks,
    )  # fmt: skip
    found.more = _past(request, days, begin, min(end, now))
    _planned(request, days, max(begin, now), end)
    return found


def _created(job: Any) -> str:
    return str(job.created_at)


def _past(request: Any, days: dict[date, Day], begin: datetime, end: datetime) -> bool:
    """Count the backups that ended; True when there are more than were looked at."""
    if end <= begin:
        return False
    jobs = request.db.jobs
    above = number_at(jobs, begin, when=_created) - 1
    before = number_at(jobs, end, when=_created)
    page = jobs.page(MAX_PAST, before=before, above=above, type="backup")
    for job in page.records:
        level = ENDINGS.get(job.state)
        if level and job.finished_at:
            day = days.get(datetime.fromisoformat(job.finished_at).date())
            if day is not None:
                day.ended[level] += 1
    return page.before is not None


def _planned(request: Any, days: dict[date, Day], begin: datetime, end: datetime) -> None:
    if end <= begin:
        return
    db = request.db
    for record in db.schedules.newest(1000):
        users = db.timetable.count_using(record.name)
        if not users:
            continue
        try:
            due = rule_of(request.plugins.schedules, record).due_between(begin, end, most=MAX_DUE)
            for instant in due:
                day = days.get(instant.date())
                if day is not None:
                    day.planned += users
                    if record.name not in day.schedules:
                        day.schedules.append(record.name)
        except BorgCubeError:
            continue  # its plugin is missing; the page of the schedule says so
