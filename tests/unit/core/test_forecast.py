"""The date on which a disk will be full: exact for a line, unmoved by odd days, silent
without enough days."""

from __future__ import annotations

from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from borgcube.core.forecast import (
    FAR_AWAY,
    FULL_ON,
    LEAST_DAYS,
    STEADY_DISK,
    TOO_LITTLE,
    Point,
    forecast,
    points_of,
)  # fmt: skip

TODAY = date(2026, 6, 1)
DISK = 10**12


def line(days: int, *, free: int, a_day: int, disk: int = DISK) -> list[Point]:
    """``days`` points up to today, on which ``free`` is left."""
    return [Point(TODAY - timedelta(days=back), free + a_day * back, disk)
            for back in range(days, -1, -1)]  # fmt: skip


@given(st.integers(LEAST_DAYS, 90), st.integers(1, 3000), st.integers(10**9, 10**10))
def test_a_disk_that_fills_evenly_is_full_on_the_day(days, left, a_day):
    found = forecast(line(days, free=left * a_day, a_day=a_day), TODAY)
    assert found.kind == FULL_ON and abs(found.bytes_a_day - a_day) < 1
    assert abs((found.day - TODAY).days - left) <= 1


@given(st.lists(st.integers(0, 60), max_size=12, unique=True), st.integers(-(10**12), 10**12))
def test_odd_days_do_not_move_the_date(odd, jump):
    points = line(60, free=50 * 10**9, a_day=10**9)
    for back in odd:
        if back:  # what is free today counts, odd or not
            point = points[60 - back]
            points[60 - back] = Point(point.day, max(0, point.free + jump), DISK)
    found = forecast(points, TODAY)
    assert found.kind == FULL_ON and 35 <= (found.day - TODAY).days <= 51


@given(
    st.lists(
        st.tuples(st.integers(0, 200), st.integers(0, DISK), st.sampled_from([DISK, DISK // 2])),
        max_size=40,
    )
)  # fmt: skip
def test_any_history_has_an_answer(days):
    points = [Point(TODAY - timedelta(days=back), free, disk) for back, free, disk in days]
    found = forecast(points, TODAY)
    assert (found.day is not None) == (found.kind == FULL_ON)
    assert found.day is None or found.day >= TODAY


@given(st.integers(0, LEAST_DAYS - 1))
def test_a_few_days_are_not_enough_and_it_says_so(days):
    assert forecast(line(days, free=10**9, a_day=10**9), TODAY).kind == TOO_LITTLE
    assert forecast([], TODAY).kind == TOO_LITTLE


def test_a_disk_that_does_not_fill_has_no_date():
    assert forecast(line(60, free=10**11, a_day=0), TODAY).kind == STEADY_DISK
    assert forecast(line(60, free=10**11, a_day=-(10**9)), TODAY).kind == STEADY_DISK
    assert forecast(line(90, free=9 * 10**11, a_day=2 * 10**7), TODAY).kind == FAR_AWAY


def test_days_before_a_larger_disk_do_not_count():
    old = [Point(TODAY - timedelta(days=back), 10**10, DISK // 4) for back in range(80, 20, -1)]
    found = forecast(old + line(20, free=10**11, a_day=10**10), TODAY)
    assert found.kind == FULL_ON and (found.day - TODAY).days == 10 and found.days == 20


def test_somebody_who_fills_the_disk_today_is_believed():
    points = line(60, free=50 * 10**9, a_day=10**9)
    points[-1] = Point(TODAY, 2 * 10**9, DISK)
    assert forecast(points, TODAY).day == TODAY + timedelta(days=2)


def test_days_without_a_look_at_the_disk_are_left_out():
    days = [("2026-05-31", {"new": 1, "free": None, "disk": None}),
            ("2026-06-01", {"new": 1, "free": 5, "disk": 10})]  # fmt: skip
    assert points_of(days) == [Point(date(2026, 6, 1), 5, 10)]
