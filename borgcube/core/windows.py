"""When something may start: weekly windows, and blackouts by week or by date.

Pure. Written by people as one line each, in the time zone of their schedule:

    mon-fri 22:00-06:00        a window, or a weekly blackout
    20:00-24:00                every day
    2026-12-24..2026-12-26     a blackout of whole days, both included
    2026-12-24 18:00..2026-12-27 06:00
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from borgcube.core.errors import InvalidInput
from borgcube.core.localtime import instants_of, local_of

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES = 24 * 60
AHEAD_DAYS = 9
MAX_SPANS = 50
_CLOCK = r"\d\d?:\d\d"
_WEEKLY = re.compile(rf"(?:(?P<days>[a-z,\- ]+?)\s+)?(?P<start>{_CLOCK})\s*-\s*(?P<end>{_CLOCK})")
_MOMENT = r"(\d{4}-\d\d-\d\d)(?:[ t](\d\d:\d\d))?"
_DATED = re.compile(rf"{_MOMENT}\s*\.\.\s*{_MOMENT}")


@dataclass(frozen=True)
class Weekly:
    """A span on some days (Monday is 0), in minutes after midnight; ``end`` may lie on the
    next day, up to 48 hours."""

    days: frozenset[int]
    start: int
    end: int

    def on(self, day: date) -> tuple[datetime, datetime] | None:
        """Return the local times between which it holds when it begins on that day."""
        if day.weekday() not in self.days:
            return None
        midnight = datetime.combine(day, time())
        return midnight + timedelta(minutes=self.start), midnight + timedelta(minutes=self.end)


@dataclass(frozen=True)
class Dated:
    """A span between two local times; the end is not part of it."""

    start: datetime
    end: datetime


def _refuse(text: str, field: str, why: str) -> InvalidInput:
    return InvalidInput(
        f"{text[:80]!r} {why}.", field=field,
        next_step="Write for instance: mon-fri 22:00-06:00",
    )  # fmt: skip


def days_of(text: str) -> frozenset[int] | None:
    """Return the days that words such as ``mon-fri``, ``sat,sun`` or ``weekdays`` mean, or
    None when they mean none."""
    found: set[int] = set()
    for part in text.replace(" ", "").split(","):
        named = {"daily": range(7), "weekdays": range(5), "weekends": range(5, 7)}.get(part)
        if named is not None:
            found.update(named)
            continue
        first, dash, last = part.partition("-")
        ends = [_day(first), _day(last) if dash else _day(first)]
        if None in ends:
            return None
        begin, end = (int(value) for value in ends if value is not None)
        found.update((begin + step) % 7 for step in range((end - begin) % 7 + 1))
    return frozenset(found)


def _day(word: str) -> int | None:
    long = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
    for names in (DAYS, long):
        if word in names:
            return names.index(word)
    return None


def minutes_of(text: str) -> int | None:
    """Return minutes after midnight of ``HH:MM``, up to 24:00, or None."""
    hours, _, minutes = text.partition(":")
    if not (hours.isascii() and hours.isdigit() and minutes.isascii() and minutes.isdigit()):
        return None
    total = int(hours) * 60 + int(minutes)
    return total if int(minutes) < 60 and total <= DAY_MINUTES else None


def parse_weekly(text: str, *, field: str) -> Weekly:
    """Return a weekly span; raises InvalidInput that names ``field``."""
    match = _WEEKLY.fullmatch(text.strip().lower())
    if match is None:
        raise _refuse(text, field, "is not a span of time")
    days = days_of(match["days"] or "daily")
    if not days:
        raise _refuse(text, field, "names a day that there is not")
    start, end = minutes_of(match["start"]), minutes_of(match["end"])
    if start is None or end is None or start == DAY_MINUTES:
        raise _refuse(text, field, "names a time that there is not")
    if start == end:
        raise _refuse(text, field, "is empty")
    return Weekly(days, start, end if end > start else end + DAY_MINUTES)


def parse_blackout(text: str, *, field: str = "blackouts") -> Weekly | Dated:
    """Return a weekly or dated span; raises InvalidInput that names ``field``."""
    match = _DATED.fullmatch(text.strip().lower())
    if match is None:
        return parse_weekly(text, field=field)
    first, first_time, last, last_time = match.groups()
    try:
        start = datetime.fromisoformat(f"{first} {first_time or '00:00'}")
        end = datetime.fromisoformat(f"{last} {last_time or '00:00'}")
    except ValueError as error:
        raise _refuse(text, field, "names a date that there is not") from error
    if not last_time:
        end += timedelta(days=1)
    if end <= start:
        raise _refuse(text, field, "ends before it begins")
    return Dated(start, end)


@dataclass(frozen=True)
class Windows:
    """When starting is allowed: inside one of ``allowed`` (if there are any) and outside all
    of ``closed``."""

    zone: ZoneInfo
    allowed: tuple[Weekly, ...] = ()
    closed: tuple[Weekly | Dated, ...] = ()

    @classmethod
    def parse(cls, zone: ZoneInfo, windows: Sequence[str], blackouts: Sequence[str]) -> Windows:
        """Read what people wrote; raises InvalidInput (field ``windows`` or ``blackouts``)."""
        for field, lines in (("windows", windows), ("blackouts", blackouts)):
            if len(lines) > MAX_SPANS:
                raise InvalidInput(f"At most {MAX_SPANS} {field}.", field=field)
        return cls(
            zone,
            tuple(parse_weekly(line, field="windows") for line in windows),
            tuple(parse_blackout(line) for line in blackouts),
        )

    def allows(self, instant: datetime) -> bool:
        """Return whether an instant is inside a window, whatever the blackouts say."""
        local = local_of(instant, self.zone)
        return not self.allowed or any(_inside(span, local) for span in self.allowed)

    def is_open(self, instant: datetime) -> bool:
        """Return whether starting is allowed at an instant."""
        if not self.allowed and not self.closed:
            return True
        local = local_of(instant, self.zone)
        return self.allows(instant) and not any(_inside(span, local) for span in self.closed)

    def next_allowed(self, instant: datetime) -> datetime | None:
        """Return the first instant from this one on that is inside a window."""
        return Windows(self.zone, self.allowed).next_open(instant)

    def next_open(self, instant: datetime) -> datetime | None:
        """Return the first instant from this one on at which starting is allowed, or None
        when there is none for years."""
        if self.is_open(instant):
            return instant
        for local in self._borders(local_of(instant, self.zone)):
            for found in instants_of(local, self.zone):
                if found >= instant and self.is_open(found):
                    return found
        return None

    def _borders(self, local: datetime) -> list[datetime]:
        """Return local times at which starting may begin to be allowed, ascending."""
        dated = [span.end for span in self.closed if isinstance(span, Dated)]
        found = {local}
        for origin in (local, *(end for end in dated if end > local)):
            found.add(origin)
            for step in range(-2, AHEAD_DAYS):
                day = origin.date() + timedelta(days=step)
                for span in (*self.allowed, *self.closed):
                    if isinstance(span, Weekly) and (edges := span.on(day)):
                        found.update(edges)
        return sorted(one for one in found if one >= local)


def _inside(span: Weekly | Dated, local: datetime) -> bool:
    if isinstance(span, Dated):
        return span.start <= local < span.end
    for step in (0, -1):
        edges = span.on(local.date() + timedelta(days=step))
        if edges and edges[0] <= local < edges[1]:
            return True
    return False
