"""When a disk will be full, from how much of it was free on past days. Pure functions.

The pace is the median of the slopes between all pairs of days (Theil 1950, Sen 1968): it
does not mind that up to a quarter of the days are odd, such as after a deletion or while
somebody parked a large file there. What the console and the storage checks say comes from here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from statistics import median
from typing import Any

WINDOW_DAYS = 90
LEAST_DAYS = 7  # between the first and the last point
LEAST_POINTS = 5
SAME_DISK = 0.01  # sizes that differ by less are those of one disk
STEADY = 0.001  # of the disk: a change over the whole window that is none
FAR = timedelta(days=3650)
FULL_ON, STEADY_DISK, FAR_AWAY, TOO_LITTLE = "full-on", "steady", "far-away", "too-little"


@dataclass(frozen=True)
class Point:
    """Free and all bytes of a disk on one day."""

    day: date
    free: int
    disk: int


@dataclass(frozen=True)
class Forecast:
    """What is to be expected. ``day`` is set for ``full-on`` only; ``bytes_a_day`` is the
    pace at which space goes, negative when it grows; ``days`` is how many were looked at."""

    kind: str
    day: date | None = None
    bytes_a_day: float = 0.0
    days: int = 0


def points_of(days: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Point]:
    """Return the points that a repository's days have (``RepositoryStatus.days``)."""
    found = []
    for day, entry in days:
        free, disk = entry.get("free"), entry.get("disk")
        if free is not None and disk:
            found.append(Point(date.fromisoformat(day), int(free), int(disk)))
    return found


def _of_one_disk(points: Sequence[Point], today: date) -> list[Point]:
    """Return the points of the window since the disk last changed its size, by day."""
    known = sorted(
        (one for one in points if timedelta(0) <= today - one.day <= timedelta(days=WINDOW_DAYS)),
        key=lambda one: one.day,
    )
    kept: list[Point] = []
    for one in reversed(known):
        if kept and abs(one.disk - kept[0].disk) > SAME_DISK * kept[0].disk:
            break
        kept.append(one)
    return kept[::-1]


def pace(points: Sequence[Point]) -> float:
    """Return the bytes by which the free space changes in a day; there must be two days."""
    return median(
        (later.free - earlier.free) / (later.day - earlier.day).days
        for place, earlier in enumerate(points)
        for later in points[place + 1 :]
        if later.day > earlier.day
    )


def forecast(points: Sequence[Point], today: date) -> Forecast:
    """Return when the disk will be full if it goes on as in the last 90 days."""
    known = _of_one_disk(points, today)
    days = (known[-1].day - known[0].day).days if known else 0
    if len(known) < LEAST_POINTS or days < LEAST_DAYS:
        return Forecast(TOO_LITTLE, days=days)
    slope = pace(known)
    if -slope * days < STEADY * known[-1].disk:
        return Forecast(STEADY_DISK, bytes_a_day=-slope, days=days)
    # What is free today: what the line says, or the last look if that was worse.
    usual = median(one.free + slope * (today - one.day).days for one in known)
    free = max(0.0, min(usual, known[-1].free + slope * (today - known[-1].day).days))
    left = timedelta(days=min(free / -slope, FAR.days + 1))
    if left > FAR:
        return Forecast(FAR_AWAY, bytes_a_day=-slope, days=days)
    return Forecast(FULL_ON, today + left, -slope, days)
