"""Schedules are right in every zone, on the days when clocks change too."""

from __future__ import annotations

import functools
import itertools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from borgcube.core.errors import InvalidInput
from borgcube.core.localtime import instants_of
from borgcube.plugins.schedule_calendar import Calendar

CALENDAR = Calendar()
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
YEARS = 5


@functools.cache
def changes(name: str) -> tuple[datetime, ...]:
    """The hours after which a zone's clocks have changed, in the next five years."""
    zone, start = ZoneInfo(name), datetime(2026, 11, 1, tzinfo=UTC)

    def same(one: datetime, other: datetime) -> bool:
        return one.astimezone(zone).utcoffset() == other.astimezone(zone).utcoffset()

    found = []
    # Changes are weeks apart, also those for Ramadan.
    for step in range(0, YEARS * 366, 5):
        hour = start + timedelta(days=step)
        if not same(hour, hour + timedelta(days=5)):
            while same(hour, hour + HOUR):
                hour += HOUR
            found.append(hour)
    return tuple(found)


@functools.cache
def changing_zones() -> tuple[str, ...]:
    """One zone for each different list of changes and offsets."""
    known: dict[tuple, str] = {}
    for name in sorted(available_timezones()):
        zone = ZoneInfo(name)
        key = tuple((c, c.astimezone(zone).utcoffset()) for c in changes(name))
        if key:
            known.setdefault(key, name)
    return tuple(known.values())


def clock(instant: datetime, zone: ZoneInfo) -> datetime:
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)


def right_instant(nominal: datetime, zone: ZoneInfo, change: datetime) -> datetime:
    """By brute force: the first minute at which clocks show the time or have passed it."""
    instant = change + (nominal - clock(change, zone)) - 4 * HOUR
    while clock(instant, zone) < nominal:
        instant += MINUTE
    return instant


def runs(spec: str, zone: str, begin: datetime, end: datetime) -> list[datetime]:
    found, moment = [], begin
    while (due := CALENDAR.next_after(spec, moment, zone=zone)) and due <= end:
        found.append(due)
        moment = due
    return found


def test_there_are_zones_whose_clocks_change() -> None:
    assert len(changing_zones()) >= 15
    assert all(len(changes(zone)) >= 5 for zone in ("Europe/Berlin", "Australia/Lord_Howe"))


@pytest.mark.parametrize("zone_name", changing_zones())
def test_a_daily_time_comes_once_each_day_across_every_change(zone_name: str) -> None:
    zone = ZoneInfo(zone_name)
    for change in changes(zone_name):
        shown = {clock(change + step * 15 * MINUTE, zone).time() for step in range(-8, 12)}
        begin, end = change - 30 * HOUR, change + 54 * HOUR
        days = [clock(change, zone).date() + timedelta(days=n) for n in (0, 1)]
        for at in sorted(shown)[::4]:
            found = runs(f"daily at {at:%H:%M}", zone_name, begin, end)
            for day in days:
                wanted = right_instant(datetime.combine(day, at), zone, change)
                near = [run for run in found if abs(run - wanted) < 3 * HOUR]
                assert near == [wanted], (zone_name, change, at, day)


@pytest.mark.parametrize("zone_name", changing_zones())
def test_hourly_runs_come_every_hour_across_every_change(zone_name: str) -> None:
    for change in changes(zone_name):
        found = runs("hourly at :30", zone_name, change - 6 * HOUR, change + 6 * HOUR)
        gaps = {later - earlier for earlier, later in itertools.pairwise(found)}
        assert max(gaps) <= HOUR, (zone_name, change, found)


def test_a_skipped_time_runs_right_after_the_gap_and_a_doubled_one_once() -> None:
    spring, autumn = datetime(2027, 3, 27, 12, tzinfo=UTC), datetime(2027, 10, 30, 12, tzinfo=UTC)
    for spec in ("daily at 02:30", "*/10 2 * * *"):
        first = CALENDAR.next_after(spec, spring, zone="Europe/Berlin")
        assert first == datetime(2027, 3, 28, 1, tzinfo=UTC)
        second = CALENDAR.next_after(spec, first, zone="Europe/Berlin")
        assert second is not None and second.date() == datetime(2027, 3, 29).date()  # noqa: DTZ001
    nights = runs("daily at 02:30", "Europe/Berlin", autumn, autumn + timedelta(days=2))
    assert nights == [datetime(2027, 10, 31, 0, 30, tzinfo=UTC),
                      datetime(2027, 11, 1, 1, 30, tzinfo=UTC)]  # fmt: skip


def test_the_half_hour_of_lord_howe_is_one_too() -> None:
    nights = runs("daily at 02:15", "Australia/Lord_Howe",
                  datetime(2027, 10, 1, tzinfo=UTC), datetime(2027, 10, 4, tzinfo=UTC))  # fmt: skip
    zone = ZoneInfo("Australia/Lord_Howe")
    assert [f"{clock(night, zone):%d %H:%M}" for night in nights] == [
        "02 02:15", "03 02:30", "04 02:15"
    ]  # fmt: skip


SPECS = ("daily at 02:30", "hourly", "*/20 1-3 * * *", "weekdays 22:30", "every 90 minutes",
         "every 2 days from 02:00", "monthly on last sunday at 02:30", "mon,thu at 01:59, 03:00",
         "0 3 29 2 *", "5 4 * * sun#1")  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(SPECS), st.sampled_from(changing_zones()), st.integers(0, 9),
    st.integers(-200_000, 200_000),
)  # fmt: skip
def test_next_and_previous_agree_and_time_only_goes_forward(
    spec: str, zone: str, which: int, seconds: int
) -> None:
    moments = changes(zone)
    moment = moments[which % len(moments)] + timedelta(seconds=seconds)
    due = CALENDAR.next_after(spec, moment, zone=zone)
    assert due is not None and due > moment and due.tzinfo is UTC
    assert CALENDAR.previous(spec, due, zone=zone) == due
    before = CALENDAR.previous(spec, moment, zone=zone)
    assert before is not None and before <= moment
    # Nothing lies between the two, whichever way it is asked.
    assert CALENDAR.next_after(spec, before, zone=zone) == due
    assert CALENDAR.previous(spec, due - timedelta(seconds=1), zone=zone) == before


@given(st.sampled_from(changing_zones()), st.integers(0, 9), st.integers(-180, 180))
def test_every_local_time_has_an_instant(zone_name: str, which: int, minutes: int) -> None:
    zone, moments = ZoneInfo(zone_name), changes(zone_name)
    local = clock(moments[which % len(moments)], zone) + timedelta(minutes=minutes)
    found = instants_of(local, zone)
    assert 1 <= len(found) <= 2
    if clock(found[0], zone) == local:
        assert all(clock(one, zone) == local for one in found)
    else:  # skipped: clocks show an earlier time just before, and a later one now
        assert clock(found[0] - timedelta(seconds=1), zone) < local < clock(found[0], zone)


@pytest.mark.parametrize(
    ("spec", "first"),
    [
        ("hourly", "2026-01-01 13:00"), ("hourly at :15", "2026-01-01 12:15"),
        ("DAILY  at 2:00", "2026-01-02 02:00"), ("@daily", "2026-01-02 00:00"),
        ("weekdays 22:30", "2026-01-01 22:30"), ("weekends at 06:00", "2026-01-03 06:00"),
        ("friday at 10:00", "2026-01-02 10:00"), ("sat-mon 10:00", "2026-01-03 10:00"),
        ("weekly on sunday at 04:00", "2026-01-04 04:00"),
        ("mon,thu at 06:00 and 18:00", "2026-01-01 18:00"),
        ("monthly on 31 at 01:00", "2026-01-31 01:00"),
        ("monthly on last at 01:00", "2026-01-31 01:00"),
        ("monthly on first sunday at 01:00", "2026-01-04 01:00"),
        ("every 6 hours", "2026-01-01 18:00"), ("every 6 hours from 01:30", "2026-01-01 13:30"),
        ("every week", "2026-01-05 00:00"), ("30 2 * * mon-fri", "2026-01-02 02:30"),
        ("0 0 29 2 *", "2028-02-29 00:00"),
    ],
)  # fmt: skip
def test_what_people_write_is_understood(spec: str, first: str) -> None:
    plain = CALENDAR.check(spec, zone="UTC")
    due = CALENDAR.next_after(plain, datetime(2026, 1, 1, 12, tzinfo=UTC), zone="UTC")
    assert f"{due:%Y-%m-%d %H:%M}" == first
    assert CALENDAR.check(plain, zone="UTC") == plain and CALENDAR.describe(plain)


@pytest.mark.parametrize(
    "spec",
    ["", "x", "daily", "daily at", "daily at 25:00", "daily at 24:00", "fooday at 01:00",
     "0 0 30 2 *", "0 0 31 4,6,9,11 *", "61 * * * *", "1 2 3", "0 0 1 1 * *",
     "monthly on 0 at 1:00",
     "monthly on 32 at 01:00", "monthly on fifth sunday at 01:00", "every 0 hours",
     "every 30 seconds", "every 9999 weeks", "hourly at :60", "daily at 01:00\x1b[2J", "0 " * 200],
)  # fmt: skip
def test_what_is_no_schedule_is_refused_with_its_field(spec: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        CALENDAR.check(spec, zone="UTC")
    assert caught.value.field == "spec" and caught.value.next_step


@pytest.mark.parametrize(
    "zone", ["", "Europe/Atlantis", "../../etc/passwd", "/etc/localtime", "\0"]
)
def test_an_unknown_zone_is_refused_with_its_field(zone: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        CALENDAR.check("hourly", zone=zone)
    assert caught.value.field == "zone"


@given(st.text(max_size=40))
def test_whatever_is_typed_is_understood_or_refused(text: str) -> None:
    try:
        plain = CALENDAR.check(text, zone="UTC")
    except InvalidInput as refused:
        plain, field = "hourly", refused.field
    else:
        field = "spec"
    assert field == "spec"
    assert CALENDAR.next_after(plain, datetime(2026, 1, 1, tzinfo=UTC), zone="UTC")
