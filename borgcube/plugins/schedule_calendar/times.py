"""The instants of a schedule. Pure.

Cron expressions are asked in local time without a zone, and what they answer is turned into
instants here, so that the rule about changes of the clock is one rule for all of them:

- a time that clocks skip is due at the instant they jump, once for all times in the gap;
- a time that comes twice is due the first time; where the expression is for every hour, both.

Intervals count elapsed time and do not see changes of the clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

from borgcube.core.localtime import change_near, instants_of, local_of
from borgcube.plugins.schedule_calendar.grammar import Cron, Interval, Meaning

MARGIN = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
FIRST_MONDAY = datetime(2001, 1, 1)  # noqa: DTZ001  # a local time


def next_after(meaning: Meaning, moment: datetime, zone: ZoneInfo) -> datetime | None:
    """Return the first instant after ``moment``, in UTC, or None."""
    moment = moment.astimezone(UTC)
    if isinstance(meaning, Interval):
        start, step = _grid(meaning, zone)
        return start + ((moment - start) // step + 1) * step
    found = (_next(line, meaning, moment, zone) for line in meaning.lines)
    return min((one for one in found if one is not None), default=None)


def previous(meaning: Meaning, moment: datetime, zone: ZoneInfo) -> datetime | None:
    """Return the last instant not after ``moment``, in UTC, or None."""
    moment = moment.astimezone(UTC)
    if isinstance(meaning, Interval):
        start, step = _grid(meaning, zone)
        return start + ((moment - start) // step) * step
    found = (_previous(line, meaning, moment, zone) for line in meaning.lines)
    return max((one for one in found if one is not None), default=None)


def _grid(interval: Interval, zone: ZoneInfo) -> tuple[datetime, timedelta]:
    local = FIRST_MONDAY + timedelta(minutes=interval.minutes)
    return instants_of(local, zone)[0], timedelta(seconds=interval.seconds)


def _instants(local: datetime, cron: Cron, zone: ZoneInfo) -> tuple[datetime, ...]:
    found = instants_of(local, zone)
    return found if cron.every_hour else found[:1]


def _locals(line: str, begin: datetime, *, reverse: bool) -> Iterator[datetime]:
    """Yield local times after (or before) ``begin``; ends where cronsim finds no more."""
    yield from CronSim(line, begin, reverse=reverse)


def _next(line: str, cron: Cron, moment: datetime, zone: ZoneInfo) -> datetime | None:
    # Around a change, a local time before that of the moment may lie after it.
    begin = local_of(moment, zone) - change_near(moment, zone) - MARGIN
    best: datetime | None = None
    for local in _locals(line, begin, reverse=False):
        found = _instants(local, cron, zone)
        later = [one for one in found if one > moment]
        best = min([*later, *([best] if best else [])], default=None)
        if found[0] > moment:  # those of later local times are later still
            return best
    return best


def _previous(line: str, cron: Cron, moment: datetime, zone: ZoneInfo) -> datetime | None:
    begin = local_of(moment, zone) + change_near(moment, zone) + MARGIN
    best: datetime | None = None
    for local in _locals(line, begin + SECOND, reverse=True):
        found = _instants(local, cron, zone)
        earlier = [one for one in found if one <= moment]
        best = max([*earlier, *([best] if best else [])], default=None)
        if found[-1] <= moment:
            return best
    return best
