"""What is said of checks, and what is kept of what a worker reports."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from borgcube.core import checks
from borgcube.core.errors import InvalidInput

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


WORDS = "2 stored objects are damaged: 3 files in 1 archive."


def data_state(**facts):
    known = {"at": NOW.isoformat(), "bytes_total": 1000, "bytes_verified": 1000,
             "oldest_at": (NOW - timedelta(days=9)).isoformat(), **facts}  # fmt: skip
    return checks.states({"data": known}, damage={}, days=30, now=NOW)[0]


def test_what_was_never_checked_is_said_to_be_so():
    found = checks.states({}, damage={}, days=30, now=NOW)
    assert [one.kind for one in found] == ["data", "archives"]
    assert found[0].words == "No byte was verified yet." and found[0].level == "warning"


def test_all_verified_in_time_is_good():
    assert data_state().level == "good"
    assert data_state().words == "Every byte was verified; the first of them 9 days ago."


def test_a_part_that_was_never_verified_is_a_warning_with_its_share():
    found = data_state(bytes_verified=370)
    assert (found.level, found.words) == ("warning", "37 % of all bytes were verified so far.")


def test_what_was_verified_too_long_ago_is_a_warning():
    found = data_state(oldest_at=(NOW - timedelta(days=31)).isoformat())
    assert found.level == "warning" and "31 days ago" in found.words and "30 days" in found.words


def test_damage_is_bad_whatever_was_verified():
    damage = checks.clean_damage({
        "chunks": 2, "ids": ["aa", "bb"], "archives_count": 1,
        "archives": {"web-1": {"files": ["etc/passwd"], "count": 3, "unreadable": False}},
    })  # fmt: skip
    found = checks.states({}, damage=damage, days=30, now=NOW)[0]
    assert (found.level, found.words) == ("bad", WORDS)
    assert checks.damaged_files(damage) == ["web-1: etc/passwd"]


def test_damage_is_bounded_and_its_words_are_harmless():
    files = ["\x1b[2J" + "x" * 9000] * 5000
    damage = checks.clean_damage({
        "chunks": 10**6, "ids": ["a" * 64] * 10**5,
        "archives": {f"a{n}": {"files": files, "count": 5000} for n in range(300)},
    })  # fmt: skip
    assert len(damage["archives"]) == checks.MAX_ARCHIVES
    text = str(damage)
    assert "\x1b" not in text and len(text) < 8_000_000
    assert len(checks.damaged_files(damage)) == checks.MAX_FILES


@given(
    st.dictionaries(st.text(), st.one_of(st.none(), st.text(), st.integers(), st.lists(st.text())))
)
def test_facts_of_a_worker_are_small_plain_data(facts):
    found = checks.clean_facts(facts)
    assert len(found) <= checks.MAX_KEYS
    assert all(value is None or isinstance(value, str | int) for value in found.values())


@pytest.mark.parametrize(
    "parameters",
    [{"kind": "all"}, {"days": -1}, {"budget_s": "soon"}, {"max_mib_s": 1 << 40}, {"days": None}],
)
def test_parameters_that_make_no_sense_are_refused(parameters):
    with pytest.raises(InvalidInput) as refusal:
        checks.check_parameters(parameters)
    assert refusal.value.field == next(iter(parameters))


def test_parameters_may_come_as_text_from_a_task():
    found = checks.check_parameters({"budget_s": "1800", "full": "true", "unknown": 1})
    assert found == {"kind": "data", "budget_s": 1800, "days": 0, "max_mib_s": 0, "full": True}
