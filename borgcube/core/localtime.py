"""Local times and the instants they name: the one place that knows daylight saving.

Pure. Used by schedule plugins and by the rules around them. A local time is a naive
``datetime``; an instant is an aware one in UTC. Zones are IANA names, from the system's
database or else from the package ``tzdata``.
"""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from borgcube.core.errors import InvalidInput

# No zone has changed its clock by more in one step since 2012.
NEAR = timedelta(hours=26)
SECOND = timedelta(seconds=1)


@functools.lru_cache(maxsize=1024)
def zone_of(name: str) -> ZoneInfo:
    """Return the zone; raises InvalidInput for an unknown name (field ``zone``)."""
    try:
        if not name or name.startswith(("/", ".")) or "\0" in name:
            raise ValueError(name)
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise InvalidInput(
            f"There is no time zone {name[:60]!r}.", field="zone",
            next_step="Use an IANA name, such as Europe/Berlin, or UTC.",
        ) from error  # fmt: skip


def local_of(instant: datetime, zone: ZoneInfo) -> datetime:
    """Return the local time that clocks of the zone show at an instant."""
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)


def instants_of(local: datetime, zone: ZoneInfo) -> tuple[datetime, ...]:
    """Return when clocks show a local time: one instant, or two where the time is doubled.

    A time that clocks skip is given the instant at which they jump over it: one, always,
    so that nothing that is planned for it is lost.
    """
    first = local.replace(tzinfo=zone, fold=0)
    second = local.replace(tzinfo=zone, fold=1)
    before, after = first.utcoffset(), second.utcoffset()
    if before == after:
        return (first.astimezone(UTC),)
    one, two = (local - offset for offset in (before, after) if offset is not None)
    if one < two:
        return one.replace(tzinfo=UTC), two.replace(tzinfo=UTC)
    return (_jump(two.replace(tzinfo=UTC), one.replace(tzinfo=UTC), zone),)


def _jump(low: datetime, high: datetime, zone: ZoneInfo) -> datetime:
    """Return the second at which the offset changes, between ``low`` and ``high``."""
    old = low.astimezone(zone).utcoffset()
    while high - low > SECOND:
        middle = low + timedelta(seconds=(high - low) // SECOND // 2)
        if middle.astimezone(zone).utcoffset() == old:
            low = middle
        else:
            high = middle
    return high


def change_near(instant: datetime, zone: ZoneInfo) -> timedelta:
    """Return by how much clocks change within a day of an instant; zero for not at all."""
    before = (instant - NEAR).astimezone(zone).utcoffset()
    after = (instant + NEAR).astimezone(zone).utcoffset()
    assert before is not None and after is not None
    return abs(after - before)
