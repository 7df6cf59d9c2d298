"""The rules around schedules: windows, blackouts, spreading, deadlines."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from borgcube.core.errors import InvalidInput
from borgcube.core.schedules import Rule, check_rule, deadline, predicted_s, staggered
from borgcube.core.windows import Windows, days_of, parse_blackout
from borgcube.plugins.schedule_calendar import Calendar

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def rule(spec: str = "daily at 02:00", *, zone: str = "UTC", windows=(), blackouts=(), **more):
    parsed = Windows.parse(ZoneInfo(zone), windows, blackouts)
    return Rule("r", Calendar(), spec, zone, parsed, **more)


@pytest.mark.parametrize(
    ("line", "inside", "outside"),
    [
        ("22:00-06:00", "2026-06-03 23:00", "2026-06-03 06:00"),
        ("mon-fri 22:00-06:00", "2026-06-06 05:59", "2026-06-06 22:00"),
        ("sat,sun 00:00-24:00", "2026-06-07 23:59", "2026-06-08 00:00"),
        ("weekends 8:00-9:00", "2026-06-06 08:00", "2026-06-05 08:00"),
        ("fri-mon 01:00-02:00", "2026-06-08 01:30", "2026-06-09 01:30"),
    ],
)
def test_a_window_is_what_it_says(line: str, inside: str, outside: str) -> None:
    windows = Windows.parse(BERLIN, [line], [])

    def at(text: str) -> datetime:
        return datetime.fromisoformat(text).replace(tzinfo=BERLIN)

    assert windows.is_open(at(inside)) and not windows.is_open(at(outside))
    closed = Windows.parse(BERLIN, [], [line])
    assert not closed.is_open(at(inside)) and closed.is_open(at(outside))


@pytest.mark.parametrize(
    "line",
    ["", "22:00", "22:00-22:00", "25:00-26:00", "24:00-06:00", "xxx 01:00-02:00",
     "mon-xxx 1:00-2:00",
     "22:60-23:00", "2026-02-30..2026-03-01", "2026-03-02..2026-03-01",
     "2026-03-01 10:00..2026-03-01 10:00"],
)  # fmt: skip
def test_what_is_no_span_is_refused_with_its_field(line: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_blackout(line)
    assert caught.value.field == "blackouts" and caught.value.next_step
    with pytest.raises(InvalidInput) as caught:
        Windows.parse(BERLIN, [line], [])
    assert caught.value.field == "windows"


LINES = ["mon-fri 22:00-06:00", "02:00-02:30", "sat,sun 00:00-24:00", "20:00-08:00",
         "wed 01:00-03:00"]  # fmt: skip
DATES = ["2026-10-24..2026-10-26", "2027-03-27 12:00..2027-03-28 02:30",
         "2026-10-20..2026-11-20"]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(LINES), max_size=2),
    st.lists(st.sampled_from([*LINES, *DATES]), max_size=2),
    st.sampled_from([datetime(2026, 10, 24, tzinfo=UTC), datetime(2027, 3, 27, tzinfo=UTC)]),
    st.integers(0, 4000),
)
def test_the_next_opening_is_open_and_nothing_before_it_is(allowed, closed, base, minutes) -> None:
    windows = Windows.parse(BERLIN, allowed, closed)
    moment = base + minutes * MINUTE
    found = windows.next_open(moment)
    if found is None:
        assert not any(windows.is_open(moment + n * 30 * MINUTE) for n in range(0, 500, 7))
        return
    assert found >= moment and windows.is_open(found)
    gap = int((found - moment) / MINUTE)
    for step in {0, gap // 3, gap // 2, gap - 1} & set(range(gap)):
        assert not windows.is_open(moment + step * MINUTE)


def test_days_are_read_as_people_write_them() -> None:
    assert days_of("fri-mon") == {4, 5, 6, 0} and days_of("Monday".lower()) == {0}
    assert days_of("weekdays,sun") == {0, 1, 2, 3, 4, 6} and days_of("mon,") is None


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"windows": ["08:00-18:00"]}, "windows"),
        ({"spec": "mon at 02:00", "windows": ["tue-sun 00:00-24:00"]}, "windows"),
        ({"blackouts": ["01:00-03:00"]}, "blackouts"),
        ({"catch_up": "perhaps"}, "catch_up"),
        ({"jitter_s": -1}, "jitter_s"),
        ({"jitter_s": 100_000}, "jitter_s"),
        ({"grace_s": -1}, "grace_s"),
    ],
)
def test_a_rule_that_never_runs_is_refused_with_its_field(more: dict, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_rule(rule(**more), NOW)
    assert caught.value.field == field
    check_rule(rule(), NOW)
    check_rule(rule(spec="hourly", windows=["02:30-04:30"], blackouts=["03:00-03:30"]), NOW)
    check_rule(rule(blackouts=["2026-06-01..2027-12-31"]), NOW)


@given(st.dictionaries(st.text(min_size=1, max_size=3), st.floats(0, 1e5), max_size=30),
       st.integers(1, 6))  # fmt: skip
def test_staggering_never_starts_more_than_there_are_lanes(durations, lanes) -> None:
    found = staggered(durations, lanes=lanes)
    assert found.keys() == durations.keys()
    for begin in found.values():
        # Begin times are cut to whole seconds.
        running = [k for k, b in found.items() if b + 1 <= begin < b + max(1.0, durations[k]) - 1]
        assert len(running) <= lanes
    if found:
        assert min(found.values()) == 0


def test_the_deadline_has_everything_that_may_delay_an_archive() -> None:
    last = datetime(2026, 6, 1, 2, 3, tzinfo=UTC)
    due = datetime(2026, 6, 2, 2, tzinfo=UTC)
    hour = timedelta(hours=1)
    plain = rule(grace_s=3600)
    assert deadline(plain, last=last, offset_s=600, duration_s=300) == due + hour + 15 * MINUTE
    out = rule(blackouts=["2026-06-02..2026-06-03"], grace_s=3600)
    assert deadline(out, last=last, offset_s=0, duration_s=0) == datetime(2026, 6, 4, 1, tzinfo=UTC)
    held = datetime(2026, 6, 5, tzinfo=UTC)
    assert deadline(plain, last=last, offset_s=0, duration_s=0, held_until=held) == held + hour
    assert predicted_s([]) == 600 and predicted_s([1, 900, 2]) == 2
