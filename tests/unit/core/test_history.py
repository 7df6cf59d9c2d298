"""What is over and old is dropped, in small steps, and nothing that is still needed; the
store's file is packed so that no crash costs it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from borgcube.core import events, history, lifecycle, packing, standing
from borgcube.core.errors import StoreError
from borgcube.core.model import AuditEntry, Job, Plan
from borgcube.core.store import Store
from borgcube.daemon.housekeeping import pack_is_due


@pytest.fixture
def store(tmp_path: Path):
    store = Store.open(f"file://{tmp_path / 'data.fs'}")
    yield store
    store.close()


def ended(root, day: str, *, plan: str = "", state: str = "done") -> Job:
    job = lifecycle.queue(root, Job(type="backup", plan=plan))
    lifecycle.take(root, job)
    lifecycle.start(root, job)
    lifecycle.finish(root, job, state)
    job.created_at = job.finished_at = f"{day}T00:00:00+00:00"
    return job


def test_jobs_that_ended_long_ago_are_dropped_in_steps(store):
    with store.transact() as root:
        root.plans.add(Plan(name="p"))
        root.record(events.PlanAdded(plan="p", client="c", repository="r"))
        last = ended(root, "2020-01-01", plan="p")
        standing.refresh(root, "p")
        waits = lifecycle.queue(root, Job(type="backup"))
        waits.created_at = "2020-01-01T00:00:00+00:00"
        for number in range(5):
            ended(root, f"2020-01-0{number + 1}")
        new = ended(root, "2026-01-01")
        steps = []
        start: int | None = 0
        while start is not None:
            old = history.old_jobs(root, before="2025", most=1000, start=start, limit=2)
            steps.append(history.drop_jobs(root, old.jobs))
            start = old.following
        assert steps == [2, 2, 1]
        assert [job.id for job in root.jobs.newest(10)] == [new.id, waits.id, last.id]
        assert root.jobs.count(state="done") == 2
        assert standing.differences(root) == []


def test_no_more_jobs_are_kept_than_wanted(store):
    with store.transact() as root:
        jobs = [ended(root, "2026-01-01") for _ in range(10)]
        old = history.old_jobs(root, before="2020", most=7)
        assert old.jobs == [job.id for job in jobs[:3]] and old.following is None


def test_old_events_are_dropped_without_a_gap(store):
    with store.transact() as root:
        for number in range(40):
            root.journal.append(events.JobPhase(job="1", phase=str(number)),
                                at=f"2026-01-{number // 2 + 1:02}T00:00:00+00:00")  # fmt: skip
        assert root.journal.drop(3, before="2026-01-05") == 3
        assert root.journal.drop(100, before="2026-01-05") == 5
        assert root.journal.drop(100, before="2026-01-05") == 0
        assert root.journal.drop(100, most=20) == 12
        assert (root.journal.first, root.journal.last) == (21, 40)
        assert [one["seq"] for one in root.journal.since(0)] == list(range(21, 41))


def test_old_entries_of_the_audit_trail_are_dropped(store):
    with store.transact() as root:
        for number in range(9):
            root.audit.add(AuditEntry(created_at=f"2026-01-0{number + 1}", user="ada"))
        assert history.drop_entries(root.audit, before="2026-01-04", most=100, limit=2) == 2
        assert history.drop_entries(root.audit, before="2026-01-04", most=100) == 1
        assert history.drop_entries(root.audit, before="2020", most=4) == 2
        assert root.audit.count() == 4 and root.audit.newest(1)[0].created_at == "2026-01-09"


def test_packing_drops_what_was_replaced_and_keeps_everything_else(store, tmp_path):
    for number in range(30):
        with store.transact() as root:
            root.settings["large"] = str(number) * 10_000
            ended(root, "2026-01-01")
    before = store.size
    with store.reading() as seen:
        store.pack()
        assert seen.jobs.count() == 30, "who reads meanwhile is not disturbed"
    assert store.size < before / 2
    assert not list(tmp_path.glob("*.old")) and not list(tmp_path.glob("*.pack"))
    with store.transact() as root:
        assert root.jobs.count(state="done") == 30
        ended(root, "2026-01-02")
    store.close()
    again = Store.open(f"file://{tmp_path / 'data.fs'}")
    with again.reading() as root:
        assert root.jobs.count() == 31 and root.settings["large"] == "29" * 10_000
    again.close()


def test_the_copy_is_synced_before_it_takes_the_files_place(store, tmp_path, monkeypatch):
    synced = []

    def sync(path: Path) -> None:
        synced.append(path.exists() and (tmp_path / "data.fs").exists())

    monkeypatch.setattr(packing, "_sync", sync)
    store.pack()
    assert synced and synced[-1]


def test_a_crash_between_the_two_renamings_of_a_pack_loses_nothing(tmp_path):
    file = tmp_path / "data.fs"
    store = Store.open(f"file://{file}")
    with store.transact() as root:
        ended(root, "2026-01-01")
    store.close()
    file.rename(tmp_path / "data.fs.old")
    (tmp_path / "data.fs.pack").write_bytes(b"half of a copy")
    store = Store.open(f"file://{file}")
    with store.reading() as root:
        assert root.jobs.count() == 1
    store.close()


def test_a_disk_without_room_is_not_filled_by_packing(store, monkeypatch):
    monkeypatch.setattr(packing, "RESERVE", 1 << 60)
    with pytest.raises(StoreError, match="no room"):
        store.pack()


def test_a_store_is_packed_when_it_has_grown_and_nothing_runs():
    now = datetime(2026, 1, 10, tzinfo=UTC)
    size = 1 << 30

    def due(hours: float, grown: float, *, busy: bool = False) -> bool:
        last = {"at": (now - timedelta(hours=hours)).isoformat(), "size": size}
        return pack_is_due(last, int(size * grown), busy=busy, now=now)

    assert not due(1000, 1.2) and not due(10, 2)
    assert due(21, 1.3) and not due(21, 1.3, busy=True)
    assert due(73, 1.3, busy=True), "a server that is never idle is packed all the same"
    assert pack_is_due({"at": "", "size": 0}, 1 << 27, busy=False, now=now)
    assert not pack_is_due({"at": "", "size": 0}, 1 << 20, busy=False, now=now)
