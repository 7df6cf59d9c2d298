"""A job that needs its repository alone gets it, and nobody overtakes it for ever."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from borgcube.daemon.queue import Slots, Waiting, select

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def job(number: int, kind: str = "backup", repository: str = "main") -> Waiting:
    return Waiting(
        number=number, id=str(number), type=kind, client="", repository=repository,
        plan=f"plan{number}" if kind == "backup" else "", task="", origin="", schedule="",
        not_before="", created_at="2026-03-02T11:00:00+00:00",
    )  # fmt: skip


def started(queued: Iterable[Waiting], *active: Waiting) -> list[int]:
    slots = Slots(9, {}, lambda name: ("", 0), lambda kind: kind == "borg-check")
    for one in active:
        slots.take(one)
    found = []
    for one in select(queued, slots, holds=lambda job: False, now=NOW):
        slots.take(one)
        slots.free -= 1
        found.append(one.number)
    return found


def test_it_waits_for_those_that_use_the_repository() -> None:
    assert started([job(2, "borg-check")], job(1)) == []
    assert started([job(2, "borg-check")]) == [2]


def test_those_behind_it_wait_for_it() -> None:
    assert started([job(2, "borg-check"), job(3)], job(1)) == []
    assert started([job(3), job(4, "check")], job(2, "borg-check")) == []


def test_other_repositories_do_not_mind() -> None:
    queued = [job(2, "borg-check"), job(3), job(4, repository="other")]
    assert started(queued, job(1)) == [4]
    assert started([job(4, repository="other")], job(2, "borg-check")) == [4]


def test_one_before_it_goes_first_and_then_it_is_alone() -> None:
    assert started([job(2), job(3, "borg-check"), job(4)]) == [2]
