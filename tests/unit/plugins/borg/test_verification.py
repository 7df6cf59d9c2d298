"""Which segments a slice takes: every byte in its days, evenly, the oldest first."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from borgcube.plugins.borg.vault.verified import (
    DAY_S,
    LEAST_SLICE_BYTES,
    State,
    due_segments,
)

GIB = 1 << 30


@settings(max_examples=25)
@given(
    st.lists(st.integers(1, 20 * GIB), min_size=1, max_size=40),
    st.integers(2, 40),
    st.sampled_from([0.25, 1, 1, 1, 2, 7]),
)
def test_with_regular_slices_no_byte_is_older_than_the_days(sizes, days, every):
    known = dict(enumerate(sizes))
    verified: dict[int, int] = {}
    start = 1_000_000_000
    moment, gap = float(start), 1.0
    while moment < start + (3 * days + 8) * DAY_S:
        for number in due_segments(known, verified, days=days, now=moment, gap_days=gap):
            verified[number] = int(moment)
        moment += every * DAY_S
        gap = every
        if moment > start + (days + every) * DAY_S:
            assert len(verified) == len(known)
            assert max(moment - when for when in verified.values()) <= (days + every) * DAY_S


def test_a_daily_slice_is_an_even_share_of_a_large_repository():
    known = dict.fromkeys(range(2000), GIB // 2)
    verified: dict[int, int] = {}
    sizes = []
    for day in range(60):
        planned = due_segments(known, verified, days=30, now=1e9 + day * DAY_S, gap_days=1)
        verified.update(dict.fromkeys(planned, int(1e9 + day * DAY_S)))
        sizes.append(len(planned))
    assert max(sizes) <= 70 and len(verified) == 2000


def test_a_small_repository_is_verified_as_a_whole():
    known = dict.fromkeys(range(10), LEAST_SLICE_BYTES // 20)
    assert due_segments(known, {}, days=365, now=1e9, gap_days=1) == list(range(10))


def test_new_segments_and_those_verified_longest_ago_come_first():
    known = dict.fromkeys(range(5), GIB)
    verified = {0: 500, 1: 400, 2: 300, 4: 200}
    assert due_segments(known, verified, days=1, now=1e9, gap_days=1) == [3, 4, 2, 1, 0]


def test_a_torn_state_is_an_empty_one(tmp_path):
    state = State.load(tmp_path)
    state.note(b"\1" * 32, "why", heals=True)
    state.save()
    assert State.load(tmp_path).heals() == {b"\1" * 32}
    state.path.write_text(state.path.read_text()[:-5])
    assert State.load(tmp_path).damaged == {}


def test_what_would_be_too_old_before_the_next_slice_is_taken_whatever_it_takes():
    known = dict.fromkeys(range(10), 5 * GIB)
    now = 1e9
    verified = dict.fromkeys(range(10), int(now - 29.5 * DAY_S))
    assert len(due_segments(known, verified, days=30, now=now, gap_days=1)) == 10
    verified = dict.fromkeys(range(10), int(now - 27.5 * DAY_S))
    assert len(due_segments(known, verified, days=30, now=now, gap_days=1)) == 1
