"""Who is told, and when: for every zone and every hour."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from borgcube.core import rules
from borgcube.core.alarms import KINDS
from borgcube.core.errors import InvalidInput
from borgcube.core.model import Rule

ZONES = st.sampled_from(sorted(available_timezones()))
CLOCKS = st.builds(lambda h, m: f"{h:02}:{m:02}", st.integers(0, 23), st.integers(0, 59))
MOMENTS = st.integers(0, 6 * 366 * 86_400).map(
    lambda seconds: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
)


def rule(**values: Any) -> Rule:
    return Rule(**{"name": "x", "channel": "y", **values})


@settings(deadline=None)
@given(ZONES, CLOCKS, CLOCKS, MOMENTS)
def test_quiet_hours_hold_until_their_end_and_no_longer(
    zone: str, begin: str, end: str, moment: datetime
) -> None:
    quiet = rule(zone=zone, quiet_from=begin, quiet_until=end)
    if begin == end:
        return
    until = rules.quiet_until(quiet, moment)
    local = moment.astimezone(ZoneInfo(zone))
    clock = f"{local:%H:%M}"
    inside = begin <= clock < end if begin < end else clock >= begin or clock < end
    if until is None:
        # Only around a change of clocks may the local time say otherwise.
        before = (moment - timedelta(hours=26)).astimezone(ZoneInfo(zone)).utcoffset()
        after = (moment + timedelta(hours=26)).astimezone(ZoneInfo(zone)).utcoffset()
        assert not inside or before != after
        return
    assert moment < until <= moment + timedelta(hours=26)
    assert (
        rules.quiet_until(quiet, until) is None
        or begin == f"{until.astimezone(ZoneInfo(zone)):%H:%M}"
    )
    assert rules.may_leave(quiet, moment, "warning") == until
    assert rules.may_leave(quiet, moment, "error") == moment


@settings(deadline=None)
@given(ZONES, CLOCKS, MOMENTS, st.sampled_from(["daily", "weekly"]), st.sampled_from(rules.DAYS))
def test_a_letter_comes_once_a_day_or_week_at_its_time(
    zone: str, at: str, moment: datetime, period: str, day: str
) -> None:
    wanted = rule(zone=zone, digest=period, digest_at=at, digest_day=day)
    first = rules.next_letter(wanted, moment)
    second = rules.next_letter(wanted, first)
    longest = timedelta(days=1 if period == "daily" else 7)
    # Samoa left out a whole day once; no zone shifts by more than that.
    assert moment < first <= moment + longest + timedelta(days=1)
    assert longest - timedelta(hours=3) <= second - first <= longest + timedelta(hours=25)
    local = first.astimezone(ZoneInfo(zone))
    naive = local.replace(tzinfo=None, fold=0)
    exists = naive.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC) == first
    if period == "weekly" and f"{local:%H:%M}" == at:
        assert rules.DAYS[local.weekday()] == day
    assert (
        f"{local:%H:%M}" == at
        or not exists
        or local.utcoffset()
        != ((first - timedelta(hours=3)).astimezone(ZoneInfo(zone)).utcoffset())
    )


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(1, 7200))
def test_waits_grow_and_end_at_an_hour(failures: int, first_s: int) -> None:
    now, then = (rules.retry_delay_s(n, first_s) for n in (failures, failures + 1))
    assert first_s <= now <= then <= max(3600, first_s)
    assert then in (2 * now, max(3600, first_s))


@settings(deadline=None)
@given(st.sampled_from(rules.SEVERITIES), st.sampled_from(rules.SEVERITIES),
       st.sampled_from(sorted(KINDS)), st.lists(st.sampled_from(sorted(KINDS))),
       st.sampled_from(["web", "mail", ""]),
       st.lists(st.sampled_from(["web", "w*", "mail"])))  # fmt: skip
def test_a_rule_wants_exactly_what_it_says(
    severity: str, least: str, kind: str, kinds: list[str], client: str, clients: list[str]
) -> None:
    wanted = rule(severity=least, kinds=tuple(kinds), clients=tuple(clients))
    incident = {"severity": severity, "kind": kind, "key": f"{kind}:x", "client": client,
                "plan": "", "repository": ""}  # fmt: skip
    of_clients = not clients or client in clients or ("w*" in clients and client == "web")
    bad_enough = rules.SEVERITIES.index(severity) >= rules.SEVERITIES.index(least)
    assert rules.wants_incident(wanted, incident) == (kind in kinds and of_clients and bad_enough)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"name": "../x"}, "name"),
        ({"severity": "awful"}, "severity"),
        ({"kinds": ("plan-lost",)}, "kinds"),
        ({"kinds": (), "events": ()}, "kinds"),
        ({"clients": ("",)}, "clients"),
        ({"clients": ("a\nb",)}, "clients"),
        ({"group_s": -1}, "group_s"),
        ({"remind_hours": 10**6}, "remind_hours"),
        ({"quiet_from": "24:00", "quiet_until": "07:00"}, "quiet_from"),
        ({"quiet_from": "22:00"}, "quiet_until"),
        ({"zone": ""}, "zone"),
        ({"zone": "../../etc/passwd"}, "zone"),
        ({"zone": "Mars/Base"}, "zone"),
        ({"digest": "hourly"}, "digest"),
        ({"digest": "daily", "digest_at": ""}, "digest_at"),
    ],
)
def test_a_rule_is_refused_with_the_field_at_fault(values: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        rules.check_rule({**rule().as_data(), **values})
    assert refused.value.field == field


def test_the_default_rule_is_fine() -> None:
    rules.check_rule(rule().as_data())


def test_nobody_hears_of_telling() -> None:
    every = SimpleNamespace(disabled=False, digest="", events=("*",), clients=(), plans=(),
                            repositories=())  # fmt: skip
    for kind in ("incident.opened", "notification.failed"):
        assert not rules.wants_event(every, {"type": kind, "data": {}})
    assert rules.wants_event(every, {"type": "archive.added", "data": {}})


NAMES = st.text("ab[*?-1", min_size=1, max_size=4)


@given(st.lists(NAMES, max_size=8), NAMES)
def test_a_pattern_that_fits_nothing_is_named(names: list[str], pattern: str) -> None:
    ordered = sorted(set(names))

    def plans(least: str) -> list[str]:
        return [name for name in ordered if name >= least]

    found = rules.matching_nothing(
        rule(plans=(pattern,)), {"clients": plans, "plans": plans, "repositories": plans}
    )
    assert bool(found) is not any(fnmatchcase(name, pattern) for name in ordered)
    assert found in ([], [f"no plan is called {pattern}"])
