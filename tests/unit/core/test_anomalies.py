"""What stands out in an archive, and what does not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from borgcube.core.anomalies import LEAST_HISTORY, Past, judge

MIB = 1 << 20


def usual(number: int = 0, **other: Any) -> dict[str, Any]:
    """Return the figures of an ordinary backup: 4,000 files, some of them changed."""
    return {
        "files": 4000 + 7 * (number % 5),
        "size": (800 + number % 7) * MIB,
        "stored_size": 500 * MIB,
        "new_size": (5 + number % 3) * MIB,
        "changed_files": 30 + number % 11,
        "fresh_size": 9 * MIB,
        "incompressible_size": 1 * MIB,
        "roots": {"/etc": 1000, "/srv": 3000 + 7 * (number % 5)},
        "missing_paths": [],
        **other,
    }


HISTORY = [Past(usual(number)) for number in range(14)]


def kinds(stats: dict[str, Any], history: list[Past] | None = None) -> list[str]:
    return [one.kind for one in judge(stats, HISTORY if history is None else history)]


def test_an_ordinary_archive_does_not_stand_out():
    assert kinds(usual(3)) == []


def test_a_ransomware_like_backup_stands_out_and_is_explained_with_numbers():
    hit = usual(changed_files=3990, new_size=780 * MIB, fresh_size=800 * MIB,
                incompressible_size=799 * MIB)  # fmt: skip
    found = judge(hit, HISTORY)
    assert {"new-data", "many-changed", "incompressible"} == {one.kind for one in found}
    words = " ".join(one.words for one in found)
    assert "100 % of its files" in words and "780.0 MiB" in words and "encrypted" in words
    assert all(one.seen == 14 for one in found)


def test_a_silently_empty_mount_stands_out_although_the_rest_is_as_usual():
    hit = usual(files=1000, roots={"/etc": 1000, "/srv": 0})
    found = judge(hit, HISTORY)
    assert "empty-path" in [one.kind for one in found]
    assert "/srv holds no file, usually 3,0" in found[0].words


def test_an_empty_source_stands_out_even_the_first_time():
    assert kinds(usual(files=0, roots={"/etc": 0}), []) == ["empty"]
    assert kinds(usual(files=0), HISTORY[:1]) == ["empty"]


def test_a_nearly_empty_source_stands_out_against_a_single_older_archive():
    assert kinds(usual(files=12, size=MIB), HISTORY[:1]) == ["nearly-empty"]


def test_a_path_of_the_plan_that_was_not_there_stands_out():
    assert kinds(usual(missing_paths=["/srv"], roots={"/etc": 1000, "/srv": 0})) == ["missing-path"]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"files": 1500}, "fewer-files"),
        ({"files": 9000}, "more-files"),
        ({"size": 200 * MIB}, "smaller"),
        ({"size": 5000 * MIB}, "larger"),
        ({"new_size": 300 * MIB}, "new-data"),
        ({"changed_files": 3500}, "many-changed"),
    ],
)
def test_each_figure_is_judged_by_itself(change, kind):
    assert kinds(usual(**change)) == [kind]


def test_what_a_person_accepted_does_not_stand_out_again():
    hit = usual(files=9000, size=5000 * MIB)
    assert kinds(hit) == ["more-files", "larger"]
    accepted = [Past(usual(files=8800, size=5100 * MIB), accepted=True), *HISTORY]
    assert kinds(hit, accepted) == []
    empty = Past(usual(files=0), accepted=True)
    assert kinds(usual(files=0), [empty, *HISTORY]) == []


def test_a_plan_of_photographs_is_not_suspected_of_encryption():
    photographs = [
        Past(usual(number, fresh_size=90 * MIB, incompressible_size=89 * MIB, new_size=89 * MIB))
        for number in range(10)
    ]
    today = usual(fresh_size=100 * MIB, incompressible_size=100 * MIB, new_size=100 * MIB)
    assert kinds(today, photographs) == []


def test_without_enough_history_nothing_but_emptiness_is_judged():
    hit = usual(size=50_000 * MIB, files=90_000, changed_files=90_000)
    assert kinds(hit, HISTORY[: LEAST_HISTORY - 1]) == []


def test_figures_that_make_no_sense_are_not_judged():
    odd = {"files": "many", "size": -1, "new_size": None, "changed_files": True, "roots": [1],
           "missing_paths": "x"}  # fmt: skip
    assert kinds(odd) == []
    assert kinds(usual(2), [Past(odd) for _ in range(20)]) == []


FIGURES = st.fixed_dictionaries(
    {
        "files": st.integers(0, 10**7),
        "size": st.integers(0, 1 << 45),
        "stored_size": st.integers(0, 1 << 45),
        "new_size": st.integers(0, 1 << 45),
        "changed_files": st.integers(0, 10**7),
        "fresh_size": st.integers(0, 1 << 45),
        "incompressible_size": st.integers(0, 1 << 45),
        "roots": st.dictionaries(st.sampled_from(["/a", "/b"]), st.integers(0, 10**6)),
        "missing_paths": st.lists(st.sampled_from(["/a", "/b"]), max_size=2),
    }
)


@given(FIGURES, st.lists(FIGURES, max_size=40))
def test_every_judgement_has_words_and_never_fails(stats, history):
    for one in judge(stats, [Past(each) for each in history]):
        assert one.kind and one.words.endswith((".", "?"))
        assert one.as_data()["seen"] <= 30


@given(FIGURES, st.integers(LEAST_HISTORY, 30))
def test_an_archive_like_all_before_it_does_not_stand_out(stats, count):
    stats = {**stats, "missing_paths": []}
    assert kinds(stats, [Past(stats)] * count) in ([], ["empty"] if not stats["files"] else [])


@given(st.lists(st.integers(3900, 4100), min_size=9, max_size=30), st.integers(0, 10**9))
def test_one_odd_archive_in_the_past_changes_no_judgement(files, odd):
    history = [Past({"files": one}) for one in files]
    spoiled = [Past({"files": odd}), *history]
    for value in (100, 1500, 4000, 10_000):
        assert kinds({"files": value}, history) == kinds({"files": value}, spoiled)


@given(st.integers(1, 100), st.integers(1, 100))
def test_the_fewer_files_are_left_the_more_it_stands_out(left, fewer):
    def stands_out(share: float) -> bool:
        return bool(kinds(usual(files=int(4000 * share))))

    small, large = sorted((left / 100, max(left - fewer, 0) / 100))
    assert stands_out(small) or not stands_out(large)
