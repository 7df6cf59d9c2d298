"""What a policy keeps is what stock borg keeps, in every time zone; pins and the newest stay."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from borg.helpers import PRUNING_PATTERNS, prune_split, prune_within
from hypothesis import given, settings
from hypothesis import strategies as st

from borgcube.core.errors import InvalidInput
from borgcube.core.retention import (
    PERIODS,
    Entry,
    Rules,
    hours_within,
    judge,
    keeps_nothing,
    moment,
    zone_named,
)

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
ZONES = ("UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Apia", "Australia/Lord_Howe")


@pytest.fixture(params=ZONES)
def zone(request, monkeypatch):
    """Run in a time zone, as borg does, which knows only the process's own."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


def stock(entries: list[Entry], rules: Rules) -> dict[str, tuple[str, int]]:
    """Return archive -> (rule, number) by borg's own functions, called as do_prune calls them."""
    archives: list[Any] = [
        SimpleNamespace(id=entry.key, name=entry.name, ts=entry.time)
        for entry in sorted(entries, key=lambda entry: entry.name)
    ]
    archives.sort(key=lambda archive: archive.ts)
    archives.reverse()
    kept: dict[str, tuple[str, int]] = {}
    if rules.within:
        prune_within(archives, hours_within(rules.within), kept)
    for rule in PRUNING_PATTERNS:
        prune_split(archives, rule, rules.count_of(rule), kept)
    return kept


def ours(entries: list[Entry], rules: Rules, *, zone: str = "") -> dict[str, tuple[str, int]]:
    verdicts = judge(entries, rules, now=datetime.now(UTC), zone=zone_named(zone))
    assert [v.entry.key for v in verdicts if v.keep] == [v.entry.key for v in verdicts if v.rule]
    return {v.entry.key: (v.rule, v.number) for v in verdicts if v.keep}


counts = st.integers(min_value=-1, max_value=12)
rule_sets = st.builds(
    Rules, within=st.sampled_from(["", "", "5H", "3d", "2w", "4m", "1y"]),
    last=st.one_of(st.just(0), counts), minutely=st.one_of(st.just(0), counts),
    hourly=counts, daily=counts, weekly=counts, monthly=counts,
    quarterly_13weekly=st.one_of(st.just(0), counts),
    quarterly_3monthly=st.one_of(st.just(0), counts), yearly=counts,
)  # fmt: skip


@st.composite
def histories(draw: Any) -> list[Entry]:
    """Regular and irregular backups over years, with bursts and archives of the same second."""
    step = draw(st.sampled_from([1, 1800, 3600, 7 * 3600, 86_400, 86_400 * 3, 86_400 * 20]))
    gaps = draw(st.lists(st.floats(min_value=0, max_value=3), max_size=50))
    at = datetime.now(UTC) - timedelta(seconds=draw(st.integers(0, 86_400 * 40)))
    entries = []
    for number, gap in enumerate(gaps):
        at -= timedelta(seconds=gap * step)
        entries.append(Entry(str(number), f"a{(number * 7919) % 1000:04d}", at))
    return draw(st.permutations(entries))


@settings(max_examples=80, deadline=None)
@given(histories(), rule_sets)
def test_the_rules_keep_what_borgs_own_functions_keep(entries, rules):
    assert ours(entries, rules) == stock(entries, rules)


def test_days_begin_as_in_borg_in_every_zone(zone):
    @settings(max_examples=15, deadline=None)
    @given(histories(), rule_sets)
    def compare(entries, rules):
        expected = stock(entries, rules)
        assert ours(entries, rules) == expected  # the zone of the process
        assert ours(entries, rules, zone=zone) == expected  # the same one by its name

    compare()


def test_the_zone_matters():
    entries = [Entry("late", "late", datetime(2026, 3, 1, 23, 30, tzinfo=UTC)),
               Entry("early", "early", datetime(2026, 3, 2, 0, 30, tzinfo=UTC))]  # fmt: skip
    assert len(ours(entries, Rules(monthly=1, daily=1), zone="UTC")) == 2
    in_berlin = judge(entries, Rules(daily=5), now=NOW, zone=zone_named("Europe/Berlin"))
    assert [(v.rule, v.number) for v in in_berlin] == [("daily", 1), ("daily[oldest]", 2)]
    in_utc = judge(entries, Rules(daily=5), now=NOW, zone=zone_named("UTC"))
    assert [(v.rule, v.number) for v in in_utc] == [("daily", 1), ("daily", 2)]


def daily(count: int) -> list[Entry]:
    return [Entry(str(n), f"a-{n:03d}", NOW - timedelta(days=n)) for n in range(count)]


def test_a_pin_keeps_its_archive_and_lets_no_other_go():
    entries = daily(20)
    pinned = [Entry(e.key, e.name, e.time, "the audit" if e.key == "15" else "") for e in entries]
    before = {v.entry.key for v in judge(entries, Rules(daily=5), now=NOW) if v.keep}
    after = {v.entry.key: v for v in judge(pinned, Rules(daily=5), now=NOW)}
    assert {key for key, verdict in after.items() if verdict.keep} == before | {"15"}
    assert after["15"].why == "pinned: the audit" and not after["15"].by_rule


def test_the_newest_good_archive_stays_whatever_the_rules_say():
    verdicts = judge(daily(5), Rules(within="1H"), now=NOW + timedelta(days=30), newest_good="0")
    assert [v.entry.key for v in verdicts if v.keep] == ["0"]
    assert keeps_nothing(verdicts), "no rule keeps it"
    assert not keeps_nothing(judge(daily(5), Rules(yearly=1), now=NOW))
    assert not keeps_nothing([])


def test_what_goes_says_why():
    verdicts = judge(daily(80), Rules(daily=3, monthly=1), now=NOW)
    why = {v.entry.key: v.why for v in verdicts}
    assert why["0"] == "daily #1" and why["3"] == "another archive of the same month is kept"
    assert why["79"] == "older than what monthly 1 keeps"
    (one,) = judge(daily(1), Rules(within="2d"), now=NOW + timedelta(days=9))
    assert one.why == "older than 2d"


def test_unfinished_archives_of_borg_go_unless_they_are_the_newest():
    entries = [*daily(3), Entry("c", "a.checkpoint", NOW - timedelta(days=1, hours=1))]
    kept = {v.entry.key for v in judge(entries, Rules(daily=10), now=NOW) if v.keep}
    assert kept == {"0", "1", "2"}
    newest = [*daily(3), Entry("c", "a.checkpoint.1", NOW + timedelta(hours=1))]
    verdict = judge(newest, Rules(daily=10), now=NOW)[0]
    assert verdict.keep and verdict.rule == "checkpoint"


@pytest.mark.parametrize("text", ["", "2", "d", "0d", "-1d", "2x", "1d ", "99999999d", "²d"])
def test_a_span_that_is_none_is_refused(text):
    with pytest.raises(InvalidInput):
        hours_within(text)


def test_bad_rules_and_zones_are_refused():
    for rules in (Rules(daily=-2), Rules(yearly=100_001), Rules(within="soon")):
        with pytest.raises(InvalidInput):
            rules.check()
    for name in ("Mars/Base", "../../etc/passwd", "/etc/localtime"):
        with pytest.raises(InvalidInput):
            zone_named(name)
    assert Rules(within="2d", daily=7, monthly=-1).check().words() == (
        "within 2d, daily 7, monthly all"
    )
    assert Rules().empty and not Rules(last=1).empty


def test_a_time_without_a_zone_is_utc_as_borg_stores_it():
    assert moment("2026-01-02T03:04:05") == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert set(PERIODS) == set(PRUNING_PATTERNS)
