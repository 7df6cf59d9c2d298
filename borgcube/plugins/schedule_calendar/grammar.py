"""What may be written as a schedule, and what it means: one or more cron expressions, or an
interval. Pure; raises InvalidInput with the field ``spec``.

Cron expressions are those of Debian's cron(5), with ``L`` for the last day and ``SUN#1`` or
``SUNL`` for the first or last Sunday of a month, as the package cronsim reads them.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

from borgcube.core.errors import InvalidInput
from borgcube.core.windows import days_of, minutes_of

MAX_LENGTH = 200
MAX_TIMES = 48
UNITS = {"minute": 60, "hour": 3600, "day": 86_400, "week": 604_800}
MAX_INTERVAL_S = 366 * 86_400
ORDINALS = {"first": 1, "second": 2, "third": 3, "fourth": 4}
EXAMPLES = "Write for instance: daily at 02:00, weekdays 22:30, every 6 hours, 30 2 * * mon-fri."
SHORTHANDS = {
    "@hourly": "hourly", "@daily": "daily at 00:00", "@midnight": "daily at 00:00",
    "@weekly": "sunday at 00:00", "@monthly": "monthly on 1 at 00:00",
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *",
}  # fmt: skip
_EVERY = re.compile(r"every (?:(\d{1,6}) )?(minute|hour|day|week)s?(?: from (\d\d?:\d\d))?")
_HOURLY = re.compile(r"hourly(?: at :(\d\d))?")
_MONTHLY = re.compile(r"monthly on (?:the )?(?:(\d\d?)\.?|(last)(?: day)?|(\w+) (\w+)) at (.+)")
_ON_DAYS = re.compile(r"(?:weekly on )?([a-z][a-z,\- ]*?),? (?:at )?(\d.*)")


@dataclass(frozen=True)
class Cron:
    """Cron expressions; a run is due when one of them matches."""

    lines: tuple[str, ...]

    @property
    def every_hour(self) -> bool:
        """Whether it is for any hour, so that a doubled hour counts twice."""
        return all(line.split()[1] == "*" for line in self.lines)


@dataclass(frozen=True)
class Interval:
    """Every so many seconds of elapsed time, counted from ``minutes`` after midnight (local
    time) on Monday, 1 January 2001."""

    seconds: int
    minutes: int


Meaning = Cron | Interval


def _refuse(spec: str, why: str = "is not a schedule") -> InvalidInput:
    return InvalidInput(f"{spec[:80]!r} {why}.", field="spec", next_step=EXAMPLES)


def plain(spec: str) -> str:
    """Return what was written with single spaces in lower case, shorthands spelled out."""
    if len(spec) > MAX_LENGTH or not spec.isprintable():
        raise _refuse(spec)
    words = " ".join(spec.split()).lower()
    return SHORTHANDS.get(words, words)


@functools.lru_cache(maxsize=4096)
def parse(spec: str) -> Meaning:
    """Return what a plain form means; raises InvalidInput, also for dates that never come."""
    if not spec:
        raise _refuse(spec, "says nothing")
    if spec[0] in "*0123456789":
        return _cron(spec, (spec,))
    if match := _EVERY.fullmatch(spec):
        return _interval(spec, match)
    if match := _HOURLY.fullmatch(spec):
        minute = int(match[1] or 0)
        if minute > 59:
            raise _refuse(spec, "names a minute that there is not")
        return Cron((f"{minute} * * * *",))
    if match := _MONTHLY.fullmatch(spec):
        return _monthly(spec, match)
    if match := _ON_DAYS.fullmatch(spec):
        days = days_of(match[1])
        if not days:
            raise _refuse(spec, "names a day that there is not")
        text = "*" if len(days) == 7 else ",".join(str((day + 1) % 7) for day in sorted(days))
        return _cron(spec, _at_times(spec, match[2], f"* * {text}"))
    raise _refuse(spec)


def _interval(spec: str, match: re.Match[str]) -> Interval:
    seconds = int(match[1] or 1) * UNITS[match[2]]
    minutes = minutes_of(match[3]) if match[3] else 0
    if minutes is None or not 60 <= seconds <= MAX_INTERVAL_S:
        raise _refuse(spec, "is not an interval of a minute to a year")
    return Interval(seconds, minutes)


def _monthly(spec: str, match: re.Match[str]) -> Cron:
    number, last, which, day_word, times = match.groups()
    if number:
        if not 1 <= int(number) <= 31:
            raise _refuse(spec, "names a day that there is not")
        return _cron(spec, _at_times(spec, times, f"{number} * *"))
    if last:
        return _cron(spec, _at_times(spec, times, "L * *"))
    days = days_of(day_word)
    if not days or len(days) > 1 or which not in (*ORDINALS, "last"):
        raise _refuse(spec, "names a day that there is not")
    name = (next(iter(days)) + 1) % 7
    nth = "L" if which == "last" else f"#{ORDINALS[which]}"
    return _cron(spec, _at_times(spec, times, f"* * {name}{nth}"))


def _at_times(spec: str, text: str, rest: str) -> tuple[str, ...]:
    lines = []
    for word in text.replace(" and ", ",").split(","):
        minutes = minutes_of(word.strip()) if ":" in word else None
        if minutes is None or minutes >= 24 * 60:
            raise _refuse(spec, "names a time that there is not")
        lines.append(f"{minutes % 60} {minutes // 60} {rest}")
    if len(lines) > MAX_TIMES:
        raise _refuse(spec, "names too many times")
    return tuple(dict.fromkeys(lines))


def _cron(spec: str, lines: tuple[str, ...]) -> Cron:
    for line in lines:
        if len(line.split()) != 5:
            raise _refuse(spec, "is not a cron expression of five fields")
        try:
            next(CronSim(line, datetime(2024, 1, 1, tzinfo=UTC)))
        except CronSimError as error:
            raise _refuse(spec, f"is not possible: {str(error).lower()}") from error
        except StopIteration as error:
            raise _refuse(spec, "never comes") from error
    return Cron(lines)


def describe(spec: str) -> str:
    """Return a schedule in words, as it is written where that is words already."""
    meaning = parse(spec)
    if isinstance(meaning, Cron) and spec[0] in "*0123456789":
        words = CronSim(meaning.lines[0].upper(), datetime(2024, 1, 1, tzinfo=UTC)).explain()
        return str(words)
    return spec
