"""Schedules as people write them: words, cron expressions, intervals.

    daily at 02:00              weekdays 22:30            mon,thu at 06:00, 18:00
    hourly                      hourly at :15             monthly on 1 at 03:00
    monthly on last sunday at 04:00                       every 6 hours from 01:30
    30 2 * * mon-fri            (cron: minute, hour, day, month, day of the week)

Pure. ``grammar`` reads what was written, ``times`` finds its instants. Core asks for it by
the name ``calendar`` through the hook; nothing else calls it.
"""

from __future__ import annotations

from datetime import datetime

from borgcube.core.hookspecs import hookimpl
from borgcube.core.localtime import zone_of
from borgcube.plugins.schedule_calendar import grammar, times


class Calendar:
    """The schedule kind ``calendar``."""

    name = "calendar"

    def check(self, spec: str, *, zone: str) -> str:
        """Return the plain form; raises InvalidInput (field ``spec`` or ``zone``)."""
        zone_of(zone)
        plain = grammar.plain(spec)
        grammar.parse(plain)
        return plain

    def next_after(self, spec: str, moment: datetime, *, zone: str) -> datetime | None:
        """Return the first instant after ``moment``, or None."""
        return times.next_after(grammar.parse(spec), moment, zone_of(zone))

    def previous(self, spec: str, moment: datetime, *, zone: str) -> datetime | None:
        """Return the last instant not after ``moment``, or None."""
        return times.previous(grammar.parse(spec), moment, zone_of(zone))

    def describe(self, spec: str) -> str:
        """Return the schedule in words."""
        return grammar.describe(spec)


@hookimpl
def register_schedules() -> list[Calendar]:
    """Offer the calendar."""
    return [Calendar()]
